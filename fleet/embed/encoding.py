"""How the bytes of a text file are to be read: its encoding, and what ends its lines.

UTF-8 is expected; UTF-16 and UTF-32 are recognised by their byte-order mark, and the line ends of
old Macs (a carriage return alone) by the absence of any other. What cannot be known is refused.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from contract.errors import InvalidRequest

SAMPLE_BYTES: Final = 64 * 1024
"""Of a file's beginning, which tell how the rest is to be read."""
_MARKS: Final = (
    # UTF-32's little-endian mark begins with UTF-16's: the longer ones come first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Encoding(NamedTuple):
    """Of a text file."""

    name: str
    """As Python's codecs call it; a byte-order mark is taken off by it."""
    newline: str
    """What ends a line: `\\n`, also where a carriage return stands before it, or `\\r`."""

    @property
    def is_utf8(self) -> bool:
        """Whether bytes that are wrong spoil one line only, and not all that follow."""
        return self.name.startswith("utf-8")

    @property
    def errors(self) -> str:
        """How bytes that are wrong are decoded."""
        return "surrogateescape" if self.is_utf8 else "strict"


def encoding_of(file: Path) -> Encoding:
    """Look at a file's beginning; raises OSError, and InvalidRequest for what is no known text."""
    with file.open("rb") as opened:
        sample = opened.read(SAMPLE_BYTES)
    name = next((name for mark, name in _MARKS if sample.startswith(mark)), "utf-8")
    if name.startswith("utf-8") and b"\0" in sample:
        raise InvalidRequest(
            f"{file} has zero bytes: it is no text, or UTF-16 without a byte-order mark; save it "
            "as UTF-8"
        )
    words = sample.decode(name, errors="ignore")
    return Encoding(name, "\r" if "\r" in words and "\n" not in words else "\n")


def lines_of(file: Path) -> Iterator[str]:
    """Every line without its end; bytes that are no UTF-8 come as surrogates, see `undecoded_at`.

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
    """What is said of a file that breaks its own encoding."""
    return InvalidRequest(f"{file} begins as {how.name} but is none further on: save it as UTF-8")


def undecoded_at(line: str) -> int | None:
    """The byte from which on a line was no UTF-8; None if all of it was."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        return len(line[: error.start].encode())
    return None


def check_utf8_lines(file: Path) -> None:
    """Raises InvalidRequest unless a server that wants lines of UTF-8 can read them, or OSError."""
    how = encoding_of(file)
    if not how.is_utf8:
        raise InvalidRequest(f"{file} is {how.name.upper()}, and only UTF-8 is read: convert it")
    if how.newline == "\r":
        raise InvalidRequest(
            f"{file} ends its lines with a carriage return alone, as old Macs did: end them with a "
            "line feed"
        )
