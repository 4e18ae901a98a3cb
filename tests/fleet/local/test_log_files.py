"""What processes print is filed, bounded, shown and followed; what `fleet up` says is shown."""

import json
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from honcho.printer import Message
from support.up import DEADLINE_S, ROOT, Command, Up, environment, wait_until

from fleet.cli.commands.logs import wants
from fleet.local import log_files
from fleet.local.log_files import Journal, LogReader, log_folder, processes
from fleet.local.supervisor import OWN_NAME


def message(text: str | bytes, name: str = "shim.1", second: int = 0) -> Message:
    return Message("line", text, datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC), name, None)


def texts(folder: Path, count: int = 100, process: str = "") -> list[str]:
    reading = LogReader(log_folder(folder), lambda name: name.startswith(process))
    try:
        return [line.text for line in reading.last(count)]
    finally:
        reading.close()


def test_lines_of_processes_are_filed_and_only_the_fleets_own_are_shown(tmp_path: Path) -> None:
    shown: list[str] = []
    journal = Journal(shown.append, tmp_path)
    journal.write(message(b"a banner\n"))
    journal.write(message("shim.1 was killed by SIGKILL", OWN_NAME, 1))
    journal.close()

    assert len(shown) == 1
    assert shown[0].endswith(" shim.1 was killed by SIGKILL")
    assert texts(tmp_path) == ["a banner", "shim.1 was killed by SIGKILL"]
    assert stat.S_IMODE(log_folder(tmp_path).stat().st_mode) == 0o700


def test_lines_of_all_processes_stand_in_the_order_of_their_times(tmp_path: Path) -> None:
    journal = Journal(print, tmp_path)
    for second, name in enumerate(["shim.1", "worker-x.1", "shim.1", "redis"]):
        journal.write(message(f"{second}", name, second))
    journal.close()

    assert texts(tmp_path) == ["0", "1", "2", "3"]
    assert texts(tmp_path, 2) == ["2", "3"]
    assert texts(tmp_path, process="shim") == ["0", "2"]


def test_a_process_that_never_stops_talking_takes_a_bounded_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "FILE_BYTES", 1000)
    journal = Journal(print, tmp_path)
    for number in range(500):
        journal.write(message(f"{number:080d}"))
    journal.close()
    files = list(log_folder(tmp_path).iterdir())

    assert len(files) == log_files.FILES
    assert sum(file.stat().st_size for file in files) <= log_files.FILES * 1000
    assert [int(text) for text in texts(tmp_path, 15)] == list(range(485, 500))


def test_processes_that_came_and_went_take_a_bounded_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "PROCESSES", 4)
    journal = Journal(print, tmp_path)
    for number in range(10):
        journal.write(message("hello", f"worker-{number}.1"))
    journal.close()

    assert len(processes(log_folder(tmp_path))) == 4
    assert "worker-9.1" in processes(log_folder(tmp_path))


def test_a_folder_that_cannot_be_written_is_said_once_and_stops_nobody(tmp_path: Path) -> None:
    log_folder(tmp_path).write_text("a file is in the way")
    shown: list[str] = []
    journal = Journal(shown.append, tmp_path)
    journal.write(message("one"))
    journal.write(message("two"))

    assert len(shown) == 1
    assert shown[0].startswith(f"logs cannot be written to {log_folder(tmp_path)}: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_is_said_once_and_stops_nobody(tmp_path: Path) -> None:
    log_folder(tmp_path).mkdir()
    (log_folder(tmp_path) / "shim.1.log").symlink_to("/dev/full")
    shown: list[str] = []
    journal = Journal(shown.append, tmp_path)
    for _ in range(3):
        journal.write(message("one"))
    journal.close()

    assert len(shown) == 1
    assert "No space left" in shown[0]


def test_following_loses_no_line_where_files_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "FILE_BYTES", 1000)
    journal = Journal(print, tmp_path)
    journal.write(message("0"))
    reading = LogReader(log_folder(tmp_path), lambda _: True)
    heard = [line.text for line in reading.last(10)]
    for number in range(1, 100):
        journal.write(message(f"{number}"))
        if number % 5 == 0:
            heard += [line.text for line in reading.new()]
    journal.write(message("I am new", "worker-x.1"))
    heard += [line.text for line in reading.new()]
    reading.close()
    journal.close()

    assert heard == [*(f"{number}" for number in range(100)), "I am new"]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    file = log_folder(tmp_path) / "shim.1.log"
    file.parent.mkdir()
    file.write_bytes(b"2026-01-01T12:00:00.000Z on")
    reading = LogReader(file.parent, lambda _: True)
    first = reading.last(10)
    with file.open("ab") as more:
        more.write(b"ce\nno line of ours\n")

    assert (list(first), [line.text for line in reading.new()]) == ([], ["once"])
    reading.close()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], True),
        (["worker-box.1"], True),
        (["worker-box"], True),
        (["worker"], True),
        (["*.1"], True),
        (["work"], False),
        (["shim", "worker-other"], False),
    ],
)
def test_processes_are_named_whole_by_their_beginning_or_by_a_pattern(
    wanted: list[str],
    expected: bool,  # noqa: FBT001
) -> None:
    assert wants("worker-box.1", wanted) is expected


def test_the_command_shows_what_fleet_up_keeps_to_itself(up: Up, fleet: Command) -> None:
    folder = str(up.folder)
    httpx.get(f"{up.status['urls'][0]}/api/v1/models")
    wait_until(lambda: "/api/v1/models" in fleet("logs", "shim", "--data-dir", folder).stdout)
    everything = fleet("logs", "--data-dir", folder, "-n", "1000")
    worker = fleet("logs", "worker", "--data-dir", folder, "--json")
    nobody = fleet("logs", "nobody", "--data-dir", folder)

    assert "[tasks]" in everything.stdout
    assert "path=/api/v1/models" in everything.stdout
    assert not any("[tasks]" in line or "/api/v1/models" in line for line in up.lines)
    heard = {json.loads(line)["process"] for line in worker.stdout.splitlines()}
    assert "worker-scripted.1" in heard
    assert all(name.startswith("worker-") for name in heard)
    assert nobody.returncode == 2
    assert "worker-scripted.1" in nobody.stderr


def test_no_logs_say_where_they_would_be(fleet: Command, tmp_path: Path) -> None:
    failed = fleet("logs", FLEET_DATA_DIR=str(tmp_path))

    assert failed.returncode == 2
    assert str(tmp_path / "logs") in failed.stderr


def test_the_command_follows_until_ctrl_c(tmp_path: Path) -> None:
    journal = Journal(print, tmp_path)
    journal.write(message("before"))
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet", "logs", "-f", "--data-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    heard: list[str] = []
    assert process.stdout
    thread = threading.Thread(target=lambda: heard.extend(process.stdout or ()))
    thread.start()
    wait_until(lambda: any("before" in line for line in heard))
    journal.write(message("after"))
    wait_until(lambda: any("after" in line for line in heard))
    process.send_signal(signal.SIGINT)
    code = process.wait(DEADLINE_S)
    thread.join()
    process.stdout.close()
    journal.close()

    assert code == 130
