"""A file that appears whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from contract.errors import InvalidRequest


@contextmanager
def whole(file: Path) -> Iterator[BinaryIO]:
    """Write `file`, which gets its name when the context ends well; raises InvalidRequest."""
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
        half.chmod(0o666 & ~_umask())
        half.replace(file)
    except BaseException:
        half.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
