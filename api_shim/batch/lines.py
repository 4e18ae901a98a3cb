"""The lines of an input file, a block at a time: memory holds a block and at most one long line."""

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from contract.batches import CustomId, LineError

_MARK: Final = b"\xef\xbb\xbf"
_MEBIBYTE: Final = 2**20


class Line(NamedTuple):
    """A line that is not blank."""

    number: int
    """In the file, from 1, blank ones counted."""
    row: int
    """Among the lines that are not blank, from 0: a request's number for good."""
    text: bytes | None
    """None: it was too long to keep."""


class Row(BaseModel):
    """A request as it stands in a line; fields that nobody knows are let be."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    custom_id: CustomId
    method: str
    url: str
    body: dict[str, Any]


async def lines(
    pieces: AsyncGenerator[bytes, None], max_line_bytes: int
) -> AsyncGenerator[list[Line], None]:
    """Cut pieces of a file into lines; yields those of each piece."""
    number, row = 0, 0
    async with aclosing(pieces):
        async for texts in _cut(pieces, max_line_bytes):
            found: list[Line] = []
            for text in texts:
                number += 1
                if text is None or text.strip():
                    found.append(Line(number, row, text))
                    row += 1
            if found:
                yield found


async def _cut(
    pieces: AsyncIterable[bytes], max_line_bytes: int
) -> AsyncGenerator[list[bytes | None], None]:
    """Lines without their ends; None in place of one that is too long."""
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


def read(line: Line, max_line_bytes: int) -> Row | LineError:
    """The request in a line, or what is wrong with it."""
    if line.text is None:
        return _wrong(
            line, "line_too_long",
            f"A line may have {max_line_bytes / _MEBIBYTE:.1f} MiB: shorten it, or raise "
            "FLEET_MAX_BODY_BYTES.",
        )  # fmt: skip
    try:
        return Row.model_validate(from_json(line.text, allow_inf_nan=False))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        if first["type"] == "missing":
            return _wrong(
                line, "missing_required_parameter", f"Missing required parameter: '{param}'.", param
            )
        return _wrong(line, "invalid_request", f"{param or 'The line'}: {first['msg']}.", param)
    except ValueError as error:
        why = _not_lines(line.text) or str(error)
        return _wrong(line, "invalid_json_line", f"This line is not parseable as JSON: {why}.")


def _not_lines(text: bytes) -> str | None:
    """What is wrong with the whole file, if that is why a line cannot be read."""
    if b"\0" in text:
        return "the file is not UTF-8 (UTF-16 perhaps): save it as UTF-8"
    if b"\r" in text.strip():
        return "lines end with a carriage return alone: end them with a line feed"
    return None


def _wrong(line: Line, code: str, message: str, param: str | None = None) -> LineError:
    return LineError(code=code, message=message, param=param, line=line.number)
