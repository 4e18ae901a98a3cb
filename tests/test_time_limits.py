"""A test that is stuck is reported by its name, the others run, and nothing of it stays.

Subjects: conftest, support/time_limit, support/orphans.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

TESTS = Path(__file__).parent
STUCK = """
import asyncio, subprocess, time
import pytest

@pytest.mark.timeout(1)
async def test_waits_for_ever():
    await asyncio.Event().wait()

@pytest.mark.timeout(1)
async def test_waits_for_a_task():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(3600))

@pytest.mark.timeout(1)
def test_cannot_be_interrupted():
    print(subprocess.Popen(["sleep", "3600"]).pid, file=open("started", "w"))
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass

async def test_is_fine():
    pass
"""
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "conftest"]
UNUSED = [f"-pno:{name}" for name in ("cacheprovider", "hypothesispytest", "schemathesis")]


@pytest.mark.slow
async def test_a_stuck_test_is_ended_and_named_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "test_stuck.py").write_text(STUCK)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfaulthandler_timeout = 3\nfaulthandler_exit_on_timeout = true\n"
    )
    pytest_in_it = await asyncio.create_subprocess_exec(
        *PYTEST, *UNUSED, "-n", "2", "test_stuck.py", cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(TESTS), "COLUMNS": "200"},
    )  # fmt: skip
    said = (await pytest_in_it.communicate())[0].decode()
    started = int((tmp_path / "started").read_text())

    for name, why in (
        ("waits_for_ever", "support.time_limit.TimeLimitReached"),
        ("waits_for_a_task", "support.time_limit.TimeLimitReached"),
        ("cannot_be_interrupted", "worker 'gw"),
    ):
        assert f"FAILED test_stuck.py::test_{name} - {why}" in said, said
    assert "in test_waits_for_ever\n    await asyncio.Event().wait()" in said
    assert "3 failed, 1 passed" in said
    async with asyncio.timeout(20):
        while psutil.pid_exists(started):
            await asyncio.sleep(0.05)
