"""The lines of an input file: split, parsed, validated, read ahead; memory use is bounded."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from api_shim.bodies.large_json import parse_large
from api_shim.http.json_body import made_of_large
from contract.batches import CustomId, LineError
from contract.json_texts.json_scan import LARGE_BYTES, TooMuch, demand_bounds

_MARK: Final = b"\xef\xbb\xbf"
_MEBIBYTE: Final = 2**20


class InputLine(NamedTuple):
    """A line that is not blank."""

    number: int
    """Line number in the file, from 1, blank lines counted."""
    row: int
    """Index among the lines that are not blank, from 0; identifies the request."""
    text: bytes | None
    """None if it was too long."""


class InputRow(BaseModel):
    """A request as a line has it; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    custom_id: CustomId
    method: str
    url: str
    body: dict[str, Any]


async def split_lines(
    pieces: AsyncGenerator[bytes, None], max_line_bytes: int
) -> AsyncGenerator[list[InputLine], None]:
    """Split the pieces of a file into lines; yields the lines of each piece."""
    number, row = 0, 0
    async with aclosing(pieces):
        async for texts in _split(pieces, max_line_bytes):
            found: list[InputLine] = []
            for text in texts:
                number += 1
                if text is None or text.strip():
                    found.append(InputLine(number, row, text))
                    row += 1
            if found:
                yield found


async def _split(
    pieces: AsyncIterable[bytes], max_line_bytes: int
) -> AsyncGenerator[list[bytes | None], None]:
    """Lines without their line ends; None in place of one that is too long."""
    rest, is_first, skips = b"", True, False
    async for piece in pieces:
        first = piece.removeprefix(_MARK) if is_first else piece
        is_first = False
        *whole, rest = (rest + first).split(b"\n")
        found: list[bytes | None] = [t if len(t) <= max_line_bytes else None for t in whole]
        if skips and found:
            found[0], skips = None, False
        if len(rest) > max_line_bytes:
            rest, skips = b"", True
        yield found
    if rest or skips:
        yield [None if skips else rest]


def parse_row(line: InputLine, max_line_bytes: int) -> InputRow | LineError:
    """The request in a line, or what is wrong with it."""
    if line.text is None:
        return _error(
            line, "line_too_long",
            f"A line may have at most {max_line_bytes / _MEBIBYTE:.1f} MiB: shorten it, or raise "
            "FLEET_MAX_BODY_BYTES.",
        )  # fmt: skip
    try:
        demand_bounds(line.text)
        return InputRow.model_validate(parse_large([line.text]))
    except TooMuch as error:
        return _error(line, "line_too_large", f"This line is too large, {error}: {error.remedy}.")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        if first["type"] == "missing":
            return _error(
                line, "missing_required_parameter", f"Missing required parameter: '{param}'.", param
            )
        return _error(line, "invalid_request", f"{param or 'The line'}: {first['msg']}.", param)
    except ValueError as error:
        why = _not_lines(line.text) or str(error)
        return _error(line, "invalid_json_line", f"This line is not parseable as JSON: {why}.")


def _not_lines(text: bytes) -> str | None:
    """The reason if no line of the file can be parsed, else None."""
    if b"\0" in text:
        return "the file is not UTF-8 (UTF-16 perhaps): save it as UTF-8"
    if b"\r" in text.strip():
        return "lines end with a carriage return alone: end them with a line feed"
    return None


def _error(line: InputLine, code: str, message: str, param: str | None = None) -> LineError:
    return LineError(code=code, message=message, param=param, line=line.number)


_MOST_AHEAD: Final = 64
_MOST_AHEAD_BYTES: Final = 8 * 2**20


class PendingRow(NamedTuple):
    """A row that is not enqueued yet."""

    number: int
    row: InputRow
    size_bytes: int


class RowReader:
    """Reads rows ahead, within bounds; accepts back rows that cannot be enqueued yet."""

    def __init__(
        self,
        blocks: AsyncGenerator[list[InputLine], None],
        is_done: Callable[[int], bool],
        max_line_bytes: int,
    ) -> None:
        """Skip rows for which `is_done`; the input has been validated before."""
        self._blocks = blocks
        self._is_done = is_done
        self._max_line_bytes = max_line_bytes
        self._lines: deque[InputLine] = deque()
        self._ahead: deque[PendingRow] = deque()
        self._ahead_bytes = 0
        self._is_over = False

    @property
    def is_exhausted(self) -> bool:
        """Whether every row was taken."""
        return self._is_over and not self._ahead and not self._lines

    async def take(self, most: int) -> list[PendingRow]:
        """Up to `most` rows in the order of the file; those that were put back come last."""
        while len(self._ahead) < _MOST_AHEAD and self._ahead_bytes < _MOST_AHEAD_BYTES:
            line = await self._next()
            if line is None:
                break
            row = await self._parsed(line)
            if not isinstance(row, LineError):
                self._push(PendingRow(line.row, row, len(line.text or b"")))
        found = [self._ahead.popleft() for _ in range(min(most, len(self._ahead)))]
        self._ahead_bytes -= sum(each.size_bytes for each in found)
        return found

    async def _parsed(self, line: InputLine) -> InputRow | LineError:
        if len(line.text or b"") <= LARGE_BYTES:
            return parse_row(line, self._max_line_bytes)
        return await made_of_large(partial(parse_row, line, self._max_line_bytes))

    def put_back(self, rows: list[PendingRow]) -> None:
        """Accept back deferred rows; others, perhaps for another model, are taken before them."""
        for each in rows:
            self._push(each)

    async def aclose(self) -> None:
        """Close the file."""
        await self._blocks.aclose()

    def _push(self, waiting: PendingRow) -> None:
        self._ahead.append(waiting)
        self._ahead_bytes += waiting.size_bytes

    async def _next(self) -> InputLine | None:
        """The next line of a row that is not done, or None."""
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


MOST_ERRORS: Final = 100
"""Errors that a batch reports at most."""


class InputValidator:
    """Validates an input block by block; `errors` and `rows` accumulate."""

    def __init__(
        self, endpoint: str, *, max_rows: int, max_line_bytes: int, has_one_model: bool = False
    ) -> None:
        """Nothing read yet; `has_one_model`: all requests must name the model of the first."""
        self._endpoint = endpoint
        self._max_rows = max_rows
        self._max_line_bytes = max_line_bytes
        self._has_one_model = has_one_model
        self._model: object = None
        self._ids: set[bytes] = set()
        self.errors: list[LineError] = []
        self.rows = 0

    @property
    def should_stop(self) -> bool:
        """Whether the rest of the input cannot change the outcome."""
        return len(self.errors) >= MOST_ERRORS or self.rows > self._max_rows

    def add(self, block: Sequence[InputLine]) -> None:
        """Validate some lines; CPU-bound, so call it in a thread."""
        for line in block:
            self.rows += 1
            if self.should_stop:
                return
            found = parse_row(line, self._max_line_bytes)
            error = found if isinstance(found, LineError) else self._error(found, line.number)
            if error is not None:
                self.errors.append(error)

    def _error(self, row: InputRow, line: int) -> LineError | None:
        # A digest: 50,000 ids of up to 512 characters would take tens of megabytes.
        digest = blake2b(row.custom_id.encode(), digest_size=16).digest()
        if digest in self._ids:
            return LineError(
                code="duplicate_custom_id",
                message=f"The custom_id {row.custom_id[:80]!r} is in an earlier line, too; "
                "each must be unique in its batch.",
                param="custom_id",
                line=line,
            )
        self._ids.add(digest)
        if row.method != "POST":
            return LineError(
                code="invalid_method",
                message="The method must be POST.",
                param="method",
                line=line,
            )
        if row.url != self._endpoint:
            return LineError(
                code="url_mismatch",
                message=f"The URL {row.url[:80]!r} is not the batch's endpoint {self._endpoint}.",
                param="url",
                line=line,
            )
        return self._model_error(row.body.get("model"), line) if self._has_one_model else None

    def _model_error(self, model: object, line: int) -> LineError | None:
        self._model = self._model or model
        if model == self._model:
            return None
        return LineError(
            code="model_mismatch",
            message=f"The model {str(model)[:80]!r} is not the one of the lines before, "
            f"{str(self._model)[:80]!r}: make a batch for each, or unset FLEET_BATCH_ONE_MODEL.",
            param="body.model",
            line=line,
        )

    def all_errors(self) -> tuple[LineError, ...]:
        """What is wrong with the input; empty if it is valid."""
        if not self.rows:
            return (LineError(code="empty_file", message="The input file holds no request."),)
        if self.rows > self._max_rows:
            too_many = LineError(
                code="too_many_tasks",
                message=f"A batch may have at most {self._max_rows} requests: split the file, or "
                "raise FLEET_BATCH_MAX_ROWS.",
            )
            return (too_many, *self.errors)
        return tuple(self.errors)
