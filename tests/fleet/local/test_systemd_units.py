"""The units of systemd: accepted by systemd, and with time to drain."""

import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from fleet.cli.app import app
from fleet.local.systemd_units import What, unit
from workers.app import _SPARE_S
from workers.settings import WorkerSettings

EACH = [(what, is_user) for what in get_args(What) for is_user in (False, True)]


def parsed(text: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize(("what", "is_user"), EACH)
def test_systemd_accepts_every_unit(what: What, *, is_user: bool, tmp_path: Path) -> None:
    made = unit(what, program=Path(sys.executable), options="", is_user=is_user)
    path = tmp_path / made.name.replace("@.", "@box.")
    path.write_text(made.text)
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    of_ours = [line for line in told.stderr.splitlines() if "llm-fleet" in line]

    assert of_ours == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("what", get_args(What))
def test_a_service_of_the_system_is_little_exposed(what: What, tmp_path: Path) -> None:
    made = unit(what, program=Path(sys.executable), options="", is_user=False)
    path = tmp_path / made.name.replace("@.", "@box.")
    path.write_text(made.text)
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(path)],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip

    assert told.returncode == 0, told.stdout  # 2.5 of 10: devices and the network are what is left


@pytest.mark.parametrize(("what", "is_user"), EACH)
def test_a_stop_leaves_time_to_drain_and_ends_the_main_process_first(
    what: What, *, is_user: bool
) -> None:
    service = parsed(unit(what, program=Path("/x"), options="", is_user=is_user).text)["Service"]
    drain_s = WorkerSettings.model_fields["drain_s"].default + _SPARE_S

    assert int(service["TimeoutStopSec"]) > drain_s
    assert service["KillMode"] == "mixed"
    assert service["NoNewPrivileges"] == "yes"
    assert ("DynamicUser" in service) is not is_user


def test_a_dry_run_prints_the_unit_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["service", "install", "--user", "--dry-run", "--options", "--scale box=0..4"]
    told = CliRunner().invoke(app, words)

    assert told.exit_code == 0
    assert "up --data-dir %S/llm-fleet --scale box=0..4\n" in told.output
    assert list(tmp_path.iterdir()) == []


def test_an_install_writes_the_unit_and_says_how_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    told = CliRunner().invoke(app, ["service", "install", "worker", "--user"])
    path = tmp_path / ".config/systemd/user/llm-fleet-worker@.service"

    assert told.exit_code == 0
    assert "systemctl --user enable --now llm-fleet-worker@<backend>.service" in told.output
    assert "FLEET_WORKER_BACKEND=%i" in path.read_text()
