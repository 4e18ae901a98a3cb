"""The `fleet` command against a real fleet: data on stdout, talk on stderr, exit codes."""

import json
import re
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest
from support.up import DEADLINE_S, ROOT, Command, Up, environment

from contract.roster import utc
from fleet import Client

ECHO = ("--backend", "scripted", "--model", "scripted-echo")
SLOW = ("--backend", "scripted", "--model", "scripted-story:chunks=2000,rate=20")


def test_chat_streams_words_and_nothing_else_to_stdout(fleet: Command) -> None:
    said = fleet("chat", "hello there", *ECHO)

    assert (said.returncode, said.stdout) == (0, "hello there\n")


def test_chat_reads_a_piped_prompt_and_chooses_a_model(fleet: Command) -> None:
    said = fleet("chat", stdin="anything")

    assert said.returncode == 0
    assert "scripted backend" in said.stdout
    assert re.search(r"^\S+ on scripted$", said.stderr, re.MULTILINE)


def test_chat_as_json_is_the_log(fleet: Command) -> None:
    said = fleet("chat", "a b", *ECHO, "--json")
    events = [json.loads(line) for line in said.stdout.splitlines()]

    assert [event["type"] for event in events if "id" in event] == [
        "queued",
        "started",
        "delta",
        "delta",
        "done",
    ]


@pytest.mark.parametrize("verb", ["show", "watch", "cancel", "retry"])
def test_an_id_that_is_none_is_named_as_it_was_typed(fleet: Command, verb: str) -> None:
    failed = fleet("jobs", verb, "zz")

    assert failed.returncode == 1
    assert failed.stderr.startswith("error: there is no job zz: an id has 32 hexadecimal digits")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("chat", "x", "--model", "nobody-has-this"), 1),
        (("chat", "x", "--no-such-option"), 2),
        (("chat", "x", "--model", "m", "--temperature", "99"), 2),
        (("chat", "x", "-b", "scripted", "-m", "scripted-story:fail=context"), 5),
        (("jobs", "show", "0" * 32), 1),
        (("jobs", "list", "--status", "tired"), 2),
    ],
)
def test_each_failure_has_its_exit_code(fleet: Command, words: tuple[str, ...], code: int) -> None:
    failed = fleet(*words)

    assert (failed.returncode, failed.stdout) == (code, "")
    assert failed.stderr


def test_the_version_is_that_of_the_package(fleet: Command, nobody: str) -> None:
    told = fleet("--version", FLEET_URL=f"http://{nobody}")

    assert (told.returncode, told.stdout) == (0, f"llm-fleet {metadata.version('llm-fleet')}\n")


def test_no_fleet_is_7_and_says_how_to_start_one(fleet: Command, nobody: str) -> None:
    failed = fleet("jobs", FLEET_URL=f"http://{nobody}")

    assert failed.returncode == 7
    assert "fleet up" in failed.stderr


def test_ctrl_c_in_a_chat_cancels_the_job(up: Up) -> None:
    chat = subprocess.Popen(
        [sys.executable, "-m", "fleet", "chat", "go", *SLOW, "--json"],
        cwd=ROOT,
        env=environment(FLEET_URL=up.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert chat.stdout
    assert any('"delta"' in line for line in chat.stdout)
    chat.send_signal(signal.SIGINT)
    _, talk = chat.communicate(timeout=DEADLINE_S)

    assert chat.returncode == 130
    assert "cancelled" in talk
    with Client(up.url) as fleet:
        assert fleet.job(talk.split()[1].rstrip(":")).view().status == "cancelled"


def test_watch_lets_go_at_the_first_ctrl_c_and_cancels_at_the_second(up: Up) -> None:
    with Client(up.url) as fleet:
        job = fleet.enqueue(
            "chat", model=SLOW[-1], backend="scripted", messages=[{"role": "user", "content": "x"}]
        )
        watch = subprocess.Popen(
            [sys.executable, "-m", "fleet", "jobs", "watch", job.id],
            cwd=ROOT,
            env=environment(FLEET_URL=up.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watch.stdout
        assert watch.stderr
        assert watch.stdout.read(1)
        watch.send_signal(signal.SIGINT)
        assert f"fleet jobs cancel {job.id}" in watch.stderr.readline()
        assert job.view().status == "running"
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=DEADLINE_S)

        assert watch.returncode == 130
        assert job.view().status == "cancelled"


def test_giving_up_is_3_and_the_job_goes_on(up: Up, fleet: Command) -> None:
    with Client(up.url) as client:
        job = client.enqueue(
            "chat", model=SLOW[-1], backend="scripted", messages=[{"role": "user", "content": "x"}]
        )
        assert fleet("jobs", "watch", job.id, "--timeout", "0.3").returncode == 3
        assert job.view().status == "running"

        assert fleet("jobs", "cancel", job.id).stdout == f"{job.id} cancelled\n"
        assert fleet("jobs", "watch", job.id).returncode == 5


def test_pull_shows_progress_to_the_end(fleet: Command) -> None:
    pulled = fleet("pull", "some:model")

    assert (pulled.returncode, pulled.stdout) == (0, "")
    assert "some:model is on scripted" in pulled.stderr


@pytest.mark.parametrize("list", ["backends", "models", "queues", "workers"])
def test_lists_are_tables_or_objects_a_line(fleet: Command, list: str) -> None:
    assert "scripted" in fleet(list).stdout
    rows = [json.loads(line) for line in fleet(list, "--json").stdout.splitlines()]
    assert all("name" in row for row in rows)


def test_config_says_where_a_value_comes_from_and_hides_keys(fleet: Command) -> None:
    shown = fleet(
        "config", "show", "--origin", FLEET_REDIS_URL="redis://:sesame@h:1", FLEET_API_KEY="xyzzy"
    ).stdout

    assert "environment (FLEET_REDIS_URL)" in shown
    assert "redis://h:1" in shown
    assert "sesame" not in shown
    assert "xyzzy" not in shown


def test_a_chat_for_a_time_that_has_passed_starts_at_once_and_says_so(fleet: Command) -> None:
    told = fleet("chat", "later", *ECHO, "--at", f"{time.time() - 60:.0f}")

    assert "that time has passed, it starts at once" in told.stderr
    assert fleet("jobs", "watch", told.stdout.strip()).stdout.strip() == "later"


def test_what_is_scheduled_is_listed_by_its_time_with_what_it_waits_for(
    up: Up, fleet: Command
) -> None:
    at = time.time() + 3600
    job = fleet("chat", "later", *ECHO, "--at", f"{at:.0f}").stdout.strip()
    with Client(up.url) as client:
        messages = [{"role": "user", "content": "then"}]
        child = client.enqueue("chat", model="scripted-echo", messages=messages, after=[job])
        rows = fleet("jobs", "scheduled", "--json").stdout.splitlines()
        told = fleet("jobs", "scheduled")
        client.job(job).cancel()

    assert [json.loads(row)["id"] for row in rows] == [job, child.id]
    assert utc(float(f"{at:.0f}")) in told.stdout
    assert job[:8] in told.stdout.splitlines()[-1]
