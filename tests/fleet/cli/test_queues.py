"""`fleet queues` against a real fleet: pause, resume, run windows."""

import json
import time

from support.up import Command, Up

from fleet import Client

QUEUE = "scripted.embed"


def test_jobs_of_a_paused_queue_wait_with_the_reason_and_run_once_it_is_resumed(
    fleet: Command, up: Up
) -> None:
    paused = fleet("queues", "pause", QUEUE, "--reason", "new cards")
    try:
        table = fleet("queues", "list", "--all")
        with Client(up.url) as client:
            model = next(each.name for each in client.models() if "embed" in each.traits)
            job = client.enqueue("embed", model=model, backend="scripted", input=["later"])
            waiting = job.view(wait_s=1)
            resumed = fleet("queues", "resume", QUEUE, "--json")
            done = job.view(wait_s=20)
    finally:
        fleet("queues", "resume", QUEUE)

    assert f"{QUEUE}: the queue is paused (new cards)" in paused.stderr
    assert next(row for row in table.stdout.splitlines() if QUEUE in row).split()[-2:] == [
        "yes",
        "-",
    ]
    assert (waiting.status, waiting.reason) == ("queued", "the queue is paused (new cards)")
    assert json.loads(resumed.stdout) == {"name": QUEUE, "windows": []}
    assert done.status == "done"


def test_run_windows_are_set_and_removed(fleet: Command) -> None:
    set_ = fleet("queues", "windows", QUEUE, "00:00-24:00 Europe/Berlin")
    table = fleet("queues")
    removed = fleet("queues", "windows", QUEUE, "--always")

    assert "its jobs start; run windows: 00:00-24:00 Europe/Berlin" in set_.stderr
    assert "00:00-24:00 Europe/Berlin" in table.stdout
    assert "run windows" not in removed.stderr


def test_what_makes_no_sense_is_told_before_or_by_the_shim(fleet: Command) -> None:
    neither = fleet("queues", "windows", QUEUE)
    wrong = fleet("queues", "windows", QUEUE, "22-06 UTC")
    unknown = fleet("queues", "pause", "nobody.chat")
    no_time = fleet("queues", "pause", QUEUE, "--until", "25:00")

    assert (neither.returncode, wrong.returncode, no_time.returncode) == (2, 2, 2)
    assert "22:00-06:00 Europe/Berlin" in wrong.stderr
    assert unknown.returncode == 1
    assert "There is no queue nobody.chat" in unknown.stderr
    assert "25:00" in no_time.stderr


def test_a_chat_for_later_is_left_to_the_fleet(fleet: Command, up: Up) -> None:
    at = time.time() + 1.5
    said = fleet("chat", "tell", "-m", "scripted-story", "-b", "scripted", "--at", str(at))
    job = said.stdout.strip()
    shown = fleet("jobs", "list", "--status", "scheduled")
    with Client(up.url) as client:
        done = client.job(job).view(wait_s=20)

    assert said.returncode == 0
    assert f"fleet jobs watch {job}" in said.stderr
    assert job[:8] in shown.stdout
    assert done.status == "done"
    assert done.started_at is not None
    assert done.started_at >= at
