"""Runs a command that ends when its parent does, even when the parent is killed with -9.

    python parent_watch.py PARENT_PID COMMAND [ARGUMENT ...]

On Linux the kernel is asked to kill this process when its parent dies (prctl PR_SET_PDEATHSIG;
`exec` keeps that wish) and the command takes this process's place, so that its pid is the child's
pid. Elsewhere this process stays between the two and looks whether its parent is still there.

A script and not a function run between fork and exec, because the parent has threads. It imports
nothing of ours, so that it starts in some 20 ms.
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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: child.send_signal(received))
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(_POLL_S)
        if os.getppid() != parent:
            child.kill()


def main(arguments: list[str]) -> int:
    """Become the command, or watch over it."""
    parent, command = int(arguments[0]), arguments[1:]
    if not sys.platform.startswith("linux"):
        return _watch(parent, command)
    _die_with_parent()
    if os.getppid() == parent:
        os.execvp(command[0], command)  # noqa: S606 - no shell is what we want
    return 1  # the parent died before the kernel knew our wish


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
