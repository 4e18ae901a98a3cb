"""A file that appears whole or not at all, and never in place of one that is read."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from contract.errors import InvalidRequest


@contextmanager
def whole(file: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Write `file`, which gets its name when the context ends well; raises InvalidRequest.

    `private`: only its owner may read it.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    except OSError as error:
        raise InvalidRequest(f"cannot write to {file.parent}: {error.strerror}") from error
    half = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        half.chmod(0o600 if private else 0o666 & ~_umask())
        half.replace(file)
    except BaseException:
        half.unlink()
        raise


def check_apart(reads: Sequence[Path], writes: Sequence[Path]) -> None:
    """Raises InvalidRequest if a file that is written is one that is read, or written twice.

    Other names of one file count: relative ones, links of either sort.
    """
    for at, file in enumerate(writes):
        if any(_is_one(file, other) for other in reads):
            raise InvalidRequest(f"{file} is read, so it would be overwritten: name another output")
        if any(_is_one(file, other) for other in writes[:at]):
            raise InvalidRequest(f"{file} would be written twice: name two outputs")


def _is_one(file: Path, other: Path) -> bool:
    try:
        return file.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(file) == os.path.realpath(other)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
