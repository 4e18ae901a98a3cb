"""Detects the encoding and the line ends of a text file.

UTF-8 is the default; UTF-16 and UTF-32 are recognised by their byte-order mark, and the line ends
of old Macs (a carriage return alone) if there is no line feed. Other files are rejected.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from contract.errors import InvalidRequest

SAMPLE_BYTES: Final = 64 * 1024
"""Bytes at the start of a file from which its format is detected."""
_MARKS: Final = (
    # UTF-32's little-endian mark begins with UTF-16's: the longer ones come first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Encoding(NamedTuple):
    """Encoding and line end of a text file."""

    name: str
    """Name of the Python codec; one that removes a byte-order mark."""
    newline: str
    """The line end: `\\n`, also for `\\r\\n`, or `\\r`."""

    @property
    def is_utf8(self) -> bool:
        """Whether it is UTF-8, where an invalid byte affects one line only."""
        return self.name.startswith("utf-8")

    @property
    def errors(self) -> str:
        """Codec error handler for invalid bytes."""
        return "surrogateescape" if self.is_utf8 else "strict"


def encoding_of(file: Path) -> Encoding:
    """Detect a file's encoding; raises OSError, and InvalidRequest for a file that is not text."""
    with file.open("rb") as opened:
        sample = opened.read(SAMPLE_BYTES)
    name = next((name for mark, name in _MARKS if sample.startswith(mark)), "utf-8")
    if name.startswith("utf-8") and b"\0" in sample:
        raise InvalidRequest(
            f"{file} has zero bytes: it is not text, or UTF-16 without a byte-order mark; save it "
            "as UTF-8"
        )
    text = sample.decode(name, errors="ignore")
    return Encoding(name, "\r" if "\r" in text and "\n" not in text else "\n")


def lines_of(file: Path) -> Iterator[str]:
    """Yield every line without its end; invalid bytes become surrogates, see `undecoded_at`.

    Raises OSError, and InvalidRequest for a file that cannot be decoded.
    """
    how = encoding_of(file)
    with file.open(encoding=how.name, errors=how.errors, newline=how.newline) as opened:
        try:
            for line in opened:
                yield line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise not_decoded(file, how) from error


def not_decoded(file: Path, how: Encoding) -> InvalidRequest:
    """The error for a file with bytes that are invalid in its encoding."""
    return InvalidRequest(f"{file} has bytes that are not valid {how.name}: save it as UTF-8")


def undecoded_at(line: str) -> int | None:
    """Position of the first byte of a line that was not UTF-8; None if there was none."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        return len(line[: error.start].encode())
    return None


def check_utf8_lines(file: Path) -> None:
    """Raises InvalidRequest unless a file is UTF-8 with line feeds; raises OSError."""
    how = encoding_of(file)
    if not how.is_utf8:
        raise InvalidRequest(f"{file} is {how.name.upper()}, not UTF-8: convert it")
    if how.newline == "\r":
        raise InvalidRequest(
            f"{file} ends its lines with a carriage return alone, as old Macs did: end them with a "
            "line feed"
        )
