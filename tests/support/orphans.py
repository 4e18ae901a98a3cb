"""What outlives the pytest that started it is killed, however that pytest ended.

A pytest that is stuck is ended without cleaning up (`faulthandler_exit_on_timeout`), as is one that
is killed. Everything that it started has a mark in its environment, which children inherit. A
process beside pytest waits for pytest's end, then kills whatever still has the mark, and names it.
PR_SET_PDEATHSIG would not do: it tells of the end of the thread that forked, and tests start
processes in threads, too.
"""

import os
import signal
import sys
from functools import cache
from uuid import uuid4

MARK = "PYTEST_STARTED_BY"
GONE_S = 5.0
ROUNDS = 5
"""A process that was about to start another one may have done so after the first look."""


@cache
def watch() -> None:
    """Mark what this process starts from now on, to be killed when this process has ended."""
    mark = os.environ[MARK] = uuid4().hex
    # We alone hold the other end, until we end; no Popen, which complains then.
    until_we_end, _ = os.pipe()
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", __file__, mark],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, until_we_end, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ],
    )
    os.close(until_we_end)


def kill_marked(mark: str) -> list[str]:
    """Kill all processes with this mark but this one; returns what they were."""
    import psutil  # noqa: PLC0415 - most of them have nothing to kill

    killed = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.pid != os.getpid():
                killed[process] = " ".join(process.cmdline())[:200]
                process.kill()
        except psutil.Error:  # gone, a zombie, or not ours to look at
            continue
    psutil.wait_procs(killed, timeout=GONE_S)
    return [f"{process.pid} {words}" for process, words in killed.items()]


def main(mark: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    sys.stdin.buffer.read()  # until pytest has ended
    for _ in range(ROUNDS):
        killed = kill_marked(mark)
        if not killed:
            return
        sys.stderr.write("\n  ".join(["Killed, because its pytest has ended:", *killed, ""]))


if __name__ == "__main__":
    main(sys.argv[1])
