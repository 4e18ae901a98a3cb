"""The rows of a batch that have no answer yet, read from its file a few at a time."""

from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Final, NamedTuple

from api_shim.batch.lines import Line, Row, read
from contract.batches import LineError

_MOST_AHEAD: Final = 64
_MOST_AHEAD_BYTES: Final = 8 * 2**20


class Waiting(NamedTuple):
    """A row that is no job yet."""

    number: int
    row: Row
    size_bytes: int


class Source:
    """Reads ahead, within bounds; takes back what cannot be enqueued yet."""

    def __init__(
        self,
        blocks: AsyncGenerator[list[Line], None],
        is_done: Callable[[int], bool],
        max_line_bytes: int,
    ) -> None:
        """Leave out rows that are done; the file has been checked, so its lines are good."""
        self._blocks = blocks
        self._is_done = is_done
        self._max_line_bytes = max_line_bytes
        self._lines: deque[Line] = deque()
        self._ahead: deque[Waiting] = deque()
        self._ahead_bytes = 0
        self._is_over = False

    @property
    def is_empty(self) -> bool:
        """Whether every row was taken."""
        return self._is_over and not self._ahead and not self._lines

    async def take(self, most: int) -> list[Waiting]:
        """Up to so many rows in the order of the file; those that were put back come later."""
        while len(self._ahead) < _MOST_AHEAD and self._ahead_bytes < _MOST_AHEAD_BYTES:
            line = await self._next()
            if line is None:
                break
            row = read(line, self._max_line_bytes)
            if not isinstance(row, LineError):
                self._push(Waiting(line.row, row, len(line.text or b"")))
        found = [self._ahead.popleft() for _ in range(min(most, len(self._ahead)))]
        self._ahead_bytes -= sum(each.size_bytes for each in found)
        return found

    def put_back(self, rows: list[Waiting]) -> None:
        """Rows whose time has not come: others, of another model perhaps, go before them."""
        for each in rows:
            self._push(each)

    async def aclose(self) -> None:
        """Close the file."""
        await self._blocks.aclose()

    def _push(self, waiting: Waiting) -> None:
        self._ahead.append(waiting)
        self._ahead_bytes += waiting.size_bytes

    async def _next(self) -> Line | None:
        """The next line of a row that is not done; None: there is none."""
        while True:
            while self._lines:
                line = self._lines.popleft()
                if not self._is_done(line.row):
                    return line
            if self._is_over:
                return None
            block = await anext(self._blocks, None)
            if block is None:
                self._is_over = True
            else:
                self._lines.extend(block)
