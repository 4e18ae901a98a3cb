"""Runs a command that is killed when its parent dies, even if the parent gets SIGKILL.

    python parent_watch.py PARENT_PID COMMAND [ARGUMENT ...]

On Linux the kernel kills this process when its parent dies (prctl PR_SET_PDEATHSIG, kept over
`exec`), and the command replaces this process, so it has the pid of the child. On other systems
this process starts the command and polls whether its parent is alive.

This is a script, not a function that runs between fork and exec, because the parent has threads. It
imports nothing of this project, so that it starts within 20 ms.
"""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.3


def _die_with_parent() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _watch(parent: int, command: list[str]) -> int:
    child = subprocess.Popen(command)  # noqa: S603 - the command line is our caller's
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda received, _: child.send_signal(received))
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(_POLL_S)
        if os.getppid() != parent:
            child.kill()


def main(arguments: list[str]) -> int:
    """Replace this process with the command, or start the command and watch the parent."""
    parent, command = int(arguments[0]), arguments[1:]
    if not sys.platform.startswith("linux"):
        return _watch(parent, command)
    _die_with_parent()
    if os.getppid() == parent:
        os.execvp(command[0], command)  # noqa: S606 - no shell is what we want
    return 1  # the parent died before prctl was called


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
