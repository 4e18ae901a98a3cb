"""Real processes under the supervisor: started again, ended for sure, never left behind."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from honcho.printer import Printer
from support.up import lives, wait_until

from fleet.local.supervisor import SupervisedEntry, Supervisor

SLEEPER = "sleep 1000"
_PARENT_WATCH = Path(__file__).parents[3] / "fleet" / "local" / "parent_watch.py"
KERNEL = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid()), "sleep", "1000"])
print(child.pid, flush=True)
time.sleep(1000)
"""
WATCH = """
import os, subprocess, sys, time
tether = "import runpy, sys; sys.platform = 'darwin'; del sys.argv[0];"
tether += "runpy.run_path(sys.argv[0], run_name='__main__')"
command = ["sh", "-c", "echo $$; exec sleep 1000"]
child = [sys.executable, "-c", tether, sys.argv[1], str(os.getpid()), *command]
child = subprocess.Popen(child, stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), end="", flush=True)
time.sleep(1000)
"""


async def happens(true: Callable[[], object], within_s: float = 15.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


def entry(command: str, name: str = "it") -> SupervisedEntry:
    return SupervisedEntry(name, command, lambda: dict(os.environ))


async def test_what_dies_is_started_again_and_its_death_is_told() -> None:
    deaths = []

    async def died(environment: dict[str, str]) -> None:
        deaths.append(environment["NAME"])

    lines = io.StringIO()
    it = SupervisedEntry(
        "it", SLEEPER, lambda: {**os.environ, "NAME": f"it-{it.starts}"}, on_death=died
    )
    async with Supervisor(Printer(lines), 5) as supervisor:
        supervisor.supervise(it)
        await happens(lambda: it.pid)
        os.kill(it.pid or 0, signal.SIGKILL)
        await happens(lambda: it.starts == 2 and it.pid)

    assert deaths == ["it-0"]
    assert "it was killed by SIGKILL" in lines.getvalue()
    assert "restarting in 0.5 s" in lines.getvalue()


async def test_lines_carry_the_name_of_their_process() -> None:
    lines = io.StringIO()
    async with Supervisor(Printer(lines), 5) as supervisor:
        supervisor.supervise(entry("echo hello", "greeter"))
        await happens(lambda: "hello" in lines.getvalue())

    assert "greeter | hello" in lines.getvalue()


async def test_variables_in_a_line_are_expanded() -> None:
    lines = io.StringIO()
    greeting = SupervisedEntry("it", 'echo "${WORD:-none}"', lambda: {**os.environ, "WORD": "a  b"})
    async with Supervisor(Printer(lines), 5) as supervisor:
        supervisor.supervise(greeting)
        await happens(lambda: "a  b" in lines.getvalue())


async def test_everything_is_gone_when_the_supervisor_ends() -> None:
    async with Supervisor(Printer(io.StringIO()), 5) as supervisor:
        entries = [entry(SLEEPER, f"it.{number}") for number in range(3)]
        for each in entries:
            supervisor.supervise(each)
        await happens(lambda: all(each.pid for each in entries))
        pids = [each.pid or 0 for each in entries]

    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


async def test_what_does_not_listen_to_sigterm_is_killed() -> None:
    lines = io.StringIO()
    async with Supervisor(Printer(lines), 0.2) as supervisor:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        deaf = entry(f"{sys.executable} -uc '{code} print(1 + 1); time.sleep(1000)'")
        supervisor.supervise(deaf)
        await happens(lambda: "| 2" in lines.getvalue())

    assert deaf.exit_code == -signal.SIGKILL


async def test_what_is_ended_before_it_has_begun_ends_all_the_same() -> None:
    async with Supervisor(Printer(io.StringIO()), 5) as supervisor:
        it = entry(SLEEPER)
        supervisor.supervise(it)
        await happens(lambda: it.child)

    assert it.exit_code in {-signal.SIGTERM, 143}


def orphan(script: str) -> int:
    """Pid of a tethered process whose parent was killed; the parent says it on stdout."""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(_PARENT_WATCH)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        wait_until(lambda: psutil.Process(child).name() == "sleep")
        parent.kill()
    return child


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_a_tethered_process_dies_with_its_parent() -> None:
    child = orphan(KERNEL)

    assert wait_until(lambda: not lives(child))


def test_a_tethered_process_dies_with_its_parent_where_the_kernel_does_not_help() -> None:
    child = orphan(WATCH)

    assert wait_until(lambda: not lives(child))


async def test_a_dropped_process_ends_for_good_and_the_others_go_on() -> None:
    kept, gone = entry(SLEEPER, "kept"), entry(SLEEPER, "gone")
    async with Supervisor(Printer(io.StringIO()), 5) as supervisor:
        supervisor.supervise(kept)
        supervisor.supervise(gone)
        await happens(lambda: kept.pid and gone.pid)
        await supervisor.remove(gone)

        assert (gone.pid, gone.starts, supervisor.entries) == (None, 1, [kept])
        assert lives(kept.pid or 0)


async def test_one_that_waits_for_its_next_start_is_dropped_at_once() -> None:
    it = entry("false")
    async with Supervisor(Printer(io.StringIO()), 5) as supervisor:
        supervisor.supervise(it)
        await happens(lambda: it.exit_code is not None)
        async with asyncio.timeout(0.9):
            await supervisor.remove(it)

        assert supervisor.entries == []


async def test_one_that_does_not_listen_is_killed() -> None:
    it = entry("sh -c 'trap \"\" TERM; echo deaf; sleep 1000'")
    lines = io.StringIO()
    async with Supervisor(Printer(lines), 0.2) as supervisor:
        supervisor.supervise(it)
        await happens(lambda: "deaf" in lines.getvalue())
        await supervisor.remove(it)

        assert it.exit_code == -signal.SIGKILL
