"""The lock of `fleet up` on its data folder.

Invariant: one embedded server at a time. The server inherits the descriptor of the lock file, so
the folder stays locked as long as the server runs, even if the `fleet up` that started it died.
"""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet.client.errors import CannotStart

_ENDING_S = 5.0
"""How long to wait for the server of a killed `fleet up` to end."""
_POLL_S = 0.05


@contextmanager
def locked(folder: Path) -> Generator[int]:
    """Create the folder and hold its lock; yields the descriptor that the server must inherit.

    Raises CannotStart if another `fleet up` has it, or if it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "fleet.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(
            f"cannot write to the data folder {folder} ({error.strerror}): name another one with "
            "--data-dir or FLEET_DATA_DIR"
        ) from error
    try:
        _lock(descriptor, folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + _ENDING_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        if _is_running(holder) or time.monotonic() >= deadline:
            raise CannotStart(
                f"the data folder {folder} is in use by another `fleet up` (pid {holder or '?'}): "
                "stop that one, or name another folder with --data-dir"
            )
        time.sleep(_POLL_S)


def _is_running(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
