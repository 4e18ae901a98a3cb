"""`fleet batch`: a file goes up, its answers come down."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.batches import echo, jsonl
from support.up import ROOT, Command, Up, environment

from contract.roster import utc

SLOW = "scripted-story:chunks=900,rate=10"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl([*map(echo, range(5)), echo(5, "scripted-story:fail=context")]))
    return path


def test_a_file_of_requests_becomes_a_file_of_answers(
    fleet: Command, file: Path, tmp_path: Path
) -> None:
    out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    submitted = fleet("batch", "submit", str(file), "--wait")
    batch = submitted.stdout.strip()
    fetched = fleet("batch", "results", batch, "-o", str(out), "--errors", str(errors))
    lines = [json.loads(line) for line in out.read_text().splitlines()]

    assert (submitted.returncode, fetched.returncode) == (0, 0)
    assert batch.startswith("batch_")
    assert "completed, 5 of 6 completed, 1 failed" in submitted.stderr
    assert sorted(line["custom_id"] for line in lines) == [f"r{n}" for n in range(5)]
    assert "context_length_exceeded" in errors.read_text()


def test_a_batch_for_a_time_that_has_passed_starts_at_once_and_says_so(
    fleet: Command, file: Path
) -> None:
    past = f"{time.time() - 60:.0f}"
    told = fleet("batch", "submit", str(file), "--at", past)
    batch = json.loads(fleet("batch", "submit", str(file), "--at", past, "--json").stdout)
    listed = fleet("batch", "list")

    assert "that time has passed: its requests start at once" in told.stderr
    assert "start at 20" not in told.stderr
    assert batch.get("not_before") is None
    assert "from 20" not in listed.stdout
    assert fleet("batch", "watch", batch["id"]).returncode == 0


def test_a_batch_that_is_refused_leaves_no_file_behind(
    up: Up, fleet: Command, tmp_path: Path
) -> None:
    path = tmp_path / "refused.jsonl"
    path.write_bytes(jsonl([echo(1)]))
    late = fleet("batch", "submit", str(path), "--at", "2099-01-01T00:00:00Z")
    window = fleet("batch", "submit", str(path), "--window", "soon")
    files = httpx.get(f"{up.url.split(',')[0]}/v1/files?limit=100").json()["data"]

    assert (late.returncode, window.returncode) == (2, 2)
    assert "at most 30 days ahead" in late.stderr
    assert "refused.jsonl" not in {each["filename"] for each in files}


def test_with_json_everything_is_an_object(fleet: Command, file: Path) -> None:
    submitted = json.loads(fleet("batch", "submit", str(file), "--json").stdout)
    watched = fleet("batch", "watch", submitted["id"], "--json").stdout.splitlines()
    last: dict[str, Any] = json.loads(watched[-1])
    listed = fleet("batch", "list", "--json").stdout.splitlines()

    assert submitted["status"] == "validating"
    assert last["status"] == "completed"
    assert last["request_counts"] == {"total": 6, "completed": 5, "failed": 1}
    assert submitted["id"] in {json.loads(line)["id"] for line in listed}


def test_all_its_requests_can_go_to_one_backend(fleet: Command, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    nameless = echo(1, "scripted-story:chunks=2")
    del nameless["body"]["backend"]  # and the roster knows no model of this name
    path.write_bytes(jsonl([nameless]))
    submitted = fleet("batch", "submit", str(path), "-b", "scripted", "--wait")

    assert "completed, 1 of 1 completed" in submitted.stderr


def test_results_can_go_to_stdout(fleet: Command, file: Path) -> None:
    batch = fleet("batch", "submit", str(file), "--wait").stdout.strip()
    told = fleet("batch", "results", batch, "-o", "-").stdout.splitlines()

    assert len([json.loads(line) for line in told]) == 5


def test_a_batch_is_cancelled(fleet: Command, tmp_path: Path) -> None:
    path = tmp_path / "slow.jsonl"
    path.write_bytes(jsonl([echo(1, SLOW)]))
    batch = fleet("batch", "submit", str(path)).stdout.strip()
    early = fleet("batch", "results", batch, "-o", str(tmp_path / "out"))
    cancelled = fleet("batch", "cancel", batch)
    watched = fleet("batch", "watch", batch)

    assert early.returncode == 1
    assert f"fleet batch watch {batch}" in early.stderr
    assert cancelled.stdout.startswith(f"{batch} cancel")
    assert watched.returncode == 5


def test_a_file_that_is_no_input_says_which_line(fleet: Command, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(jsonl([echo(1), echo(1)]))
    told = fleet("batch", "submit", str(path), "--wait")

    assert told.returncode == 5
    assert "line 2: " in told.stderr
    assert "duplicate_custom_id" in told.stderr


def test_a_file_without_a_request_is_not_sent(fleet: Command, tmp_path: Path) -> None:
    path = tmp_path / "no.jsonl"
    path.write_text("hello\n")

    assert fleet("batch", "submit", str(path)).returncode == 2


@pytest.mark.parametrize(
    ("encode", "why"),
    [
        (lambda data: data.decode().encode("utf-16"), "UTF-16, not UTF-8"),
        (lambda data: data.replace(b"\n", b"\r"), "carriage return alone"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--endpoint", "/v1/chat/completions")])
def test_a_file_that_the_shim_could_not_read_is_named_before_it_is_sent(
    fleet: Command, file: Path, encode: Callable[[bytes], bytes], why: str, more: tuple[str, ...]
) -> None:
    file.write_bytes(encode(file.read_bytes()))
    said = fleet("batch", "submit", str(file), *more)

    assert said.returncode == 2
    assert why in said.stderr.replace("\n", " ")


def test_answers_and_errors_do_not_overwrite_each_other(fleet: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    (tmp_path / "link.jsonl").symlink_to(out)
    errors = ("--errors", str(tmp_path / "link.jsonl"))
    said = fleet("batch", "results", "batch_" + "0" * 32, "-o", str(out), *errors)

    assert said.returncode == 2
    assert "written twice" in said.stderr.replace("\n", " ")


def test_an_unknown_batch_and_an_unknown_endpoint_are_told(fleet: Command, file: Path) -> None:
    unknown = fleet("batch", "watch", "batch_" + "0" * 32)
    endpoint = fleet("batch", "submit", str(file), "--endpoint", "/v1/nothing")

    assert unknown.returncode == 1
    assert "there is no batch" in unknown.stderr
    assert "/v1/embeddings" in endpoint.stderr


def test_an_interrupted_watch_lets_the_batch_go_on(up: Up, fleet: Command, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl([echo(1, "scripted-story:chunks=30,rate=10")]))
    command = [sys.executable, "-m", "fleet", "batch", "submit", str(path), "--wait"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(FLEET_URL=up.url), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    batch = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=20)

    assert process.returncode == 130
    assert f"fleet batch watch {batch}" in talk
    assert fleet("batch", "watch", batch).returncode == 0


def test_a_batch_for_later_is_checked_at_once_and_runs_at_its_time(
    fleet: Command, file: Path
) -> None:
    at = round(time.time() + 3, 1)
    submitted = fleet("batch", "submit", str(file), "--at", f"{at:.1f}", "--wait", "--json")
    seen = [json.loads(line) for line in submitted.stdout.splitlines()]
    night = round(time.time()) + 3600
    waits = fleet("batch", "submit", str(file), "--at", f"{night:.0f}").stdout.strip()
    far = fleet("batch", "submit", str(file), "--at", "2999-01-01T00:00:00Z")
    wrong = fleet("batch", "submit", str(file), "--at", "noon")

    assert (seen[0]["status"], seen[0]["not_before"]) == ("validating", int(at))
    assert seen[1]["request_counts"]["total"] == 6
    assert (seen[1]["status"], seen[-1]["status"]) == ("validating", "completed")
    listed = fleet("batch", "list")
    cancelled = fleet("batch", "cancel", waits)
    assert f"from {utc(night)}" in listed.stdout
    assert "cancelling" in cancelled.stdout
    assert time.time() >= at
    assert "at most 30 days ahead" in far.stderr
    assert "--at" in wrong.stderr
