"""The file that says whether a worker works, and the command that reads it."""

import os
import signal
import time
from pathlib import Path

import pytest
from support.processes import worker
from support.relay import relay_on
from typer.testing import CliRunner

from fleet.cli.app import app
from workers.host.container import HealthFile


def health(path: Path, *options: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["worker", "health", "--file", str(path), *options])
    return told.exit_code, told.output


@pytest.mark.slow
async def test_a_worker_is_well_while_it_reports_and_its_file_goes_with_it(
    redis_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "health"
    async with relay_on(redis_url) as relay:
        with worker(redis_url, tmp_path, FLEET_HEALTH_FILE=str(path)) as process:
            before = health(path)[0]
            await process.ready(relay)
            during = health(path)[0]
            process.send(signal.SIGTERM)
            process.wait()

    assert (before, during) == (1, 0)
    assert not path.exists()


def test_an_old_report_is_not_well_and_says_how_old(tmp_path: Path) -> None:
    path = tmp_path / "health"
    HealthFile(path).touch("ok")
    os.utime(path, (time.time() - 60, time.time() - 60))

    code, said = health(path)
    assert (code, health(path, "--max-age", "120")[0]) == (1, 0)
    assert "60 s ago" in said


def test_without_a_file_to_read_the_setting_is_named() -> None:
    told = CliRunner().invoke(app, ["worker", "health"])

    assert told.exit_code == 2
    assert "FLEET_HEALTH_FILE" in told.output


def test_a_folder_that_is_missing_is_said_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = HealthFile(tmp_path / "missing" / "health")
    for _ in range(3):
        file.touch("ok")
    file.remove()

    assert len(caplog.records) == 1
    assert "FLEET_HEALTH_FILE" in caplog.text
