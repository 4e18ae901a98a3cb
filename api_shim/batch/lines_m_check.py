"""Whether a file can be the input of a batch: every line is looked at before the first one runs.

The codes are those that OpenAI's own batches are known to give, where there is one. What a body
asks for is not looked at here: a request that cannot work fails by itself, and the others run.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from api_shim.batch.lines import Line, Row, read
from contract.batches import LineError

MOST_ERRORS: Final = 100
"""Errors that are told; a file with more of them is wrong in the same way again and again."""


class Check:
    """Takes an input's lines in turn; `errors` and `rows` say what came out."""

    def __init__(
        self, endpoint: str, *, max_rows: int, max_line_bytes: int, has_one_model: bool = False
    ) -> None:
        """Nothing seen yet; `has_one_model`: all requests must name the model of the first."""
        self._endpoint = endpoint
        self._max_rows = max_rows
        self._max_line_bytes = max_line_bytes
        self._has_one_model = has_one_model
        self._model: object = None
        self._ids: set[bytes] = set()
        self.errors: list[LineError] = []
        self.rows = 0

    @property
    def is_hopeless(self) -> bool:
        """Whether nothing that follows matters any more."""
        return len(self.errors) >= MOST_ERRORS or self.rows > self._max_rows

    def add(self, block: Sequence[Line]) -> None:
        """Look at some lines; costs processor time, so not on the loop."""
        for line in block:
            self.rows += 1
            if self.is_hopeless:
                return
            found = read(line, self._max_line_bytes)
            error = found if isinstance(found, LineError) else self._wrong(found, line.number)
            if error is not None:
                self.errors.append(error)

    def _wrong(self, row: Row, line: int) -> LineError | None:
        # A digest: fifty thousand ids of some length would be most of what a shim holds.
        digest = blake2b(row.custom_id.encode(), digest_size=16).digest()
        if digest in self._ids:
            return LineError(
                code="duplicate_custom_id",
                message=f"The custom_id {row.custom_id[:80]!r} stands in an earlier line, too; "
                "each must be unique in its batch.",
                param="custom_id",
                line=line,
            )
        self._ids.add(digest)
        if row.method != "POST":
            return LineError(
                code="invalid_method",
                message="The method of a request in a batch is POST.",
                param="method",
                line=line,
            )
        if row.url != self._endpoint:
            return LineError(
                code="url_mismatch",
                message=f"The URL {row.url[:80]!r} is not the batch's endpoint, {self._endpoint}.",
                param="url",
                line=line,
            )
        return self._other_model(row.body.get("model"), line) if self._has_one_model else None

    def _other_model(self, model: object, line: int) -> LineError | None:
        self._model = self._model or model
        if model == self._model:
            return None
        return LineError(
            code="model_mismatch",
            message=f"The model {str(model)[:80]!r} is not that of the lines before it, "
            f"{str(self._model)[:80]!r}: make a batch for each, or unset FLEET_BATCH_ONE_MODEL.",
            param="body.model",
            line=line,
        )

    def verdict(self) -> tuple[LineError, ...]:
        """What is wrong with the file; empty if it is good."""
        if not self.rows:
            return (LineError(code="empty_file", message="The input file holds no request."),)
        if self.rows > self._max_rows:
            too_many = LineError(
                code="too_many_tasks",
                message=f"A batch may have {self._max_rows} requests: split the file, or raise "
                "FLEET_BATCH_MAX_ROWS.",
            )
            return (too_many, *self.errors)
        return tuple(self.errors)
