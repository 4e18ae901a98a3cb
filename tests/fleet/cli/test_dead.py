"""`fleet dead` and `fleet jobs retry`, against a real fleet whose backend breaks when told to."""

import json
from collections.abc import Iterator

import pytest
from support.up import Command, Up

from contract.errors import JobNotFound, NotDead
from fleet import Client

ASK = [{"role": "user", "content": "tell"}]


@pytest.fixture
def client(up: Up) -> Iterator[Client]:
    with Client(up.url) as client:
        yield client


@pytest.fixture
def dead(client: Client) -> str:
    """A job that ran out of attempts."""
    job = client.enqueue(
        "chat", model="scripted-story:fail=error", backend="scripted", messages=ASK, max_attempts=1
    )
    view = job.view(wait_s=20)
    assert view.dead_at is not None, view
    return job.id


def test_a_job_that_dies_while_it_is_followed_is_6(fleet: Command, dead: str) -> None:
    watched = fleet("jobs", "watch", dead)

    assert watched.returncode == 6
    assert f"fleet dead retry {dead}" in watched.stderr


def test_dead_letters_are_listed_and_shown(fleet: Command, dead: str) -> None:
    table, lines = fleet("dead"), fleet("dead", "list", "--json")
    shown, whole = fleet("dead", "show", dead), fleet("dead", "show", dead, "--json")

    assert dead in table.stdout
    assert dead in [json.loads(line)["id"] for line in lines.stdout.splitlines()]
    assert "server_fault" in shown.stdout
    assert json.loads(whole.stdout)["request"]["messages"] == ASK


@pytest.mark.parametrize("words", [("dead", "retry"), ("jobs", "retry")])
def test_a_retry_is_told_on_stdout_and_is_one_job(
    words: tuple[str, ...], fleet: Command, dead: str
) -> None:
    first, again = fleet(*words, dead), fleet(*words, dead, "--json")

    assert (first.returncode, again.returncode) == (0, 0)
    assert json.loads(again.stdout)["id"] == first.stdout.strip() != dead
    assert dead not in fleet("dead", "list").stdout


def test_what_is_not_dead_cannot_be_retried(fleet: Command, client: Client) -> None:
    done = client.enqueue("chat", model="scripted-echo", backend="scripted", messages=ASK)
    done.result(20)

    assert fleet("dead", "retry", done.id).returncode == 1
    assert fleet("dead", "retry").returncode == 2
    with pytest.raises(NotDead):
        done.retry()


def test_a_purge_asks_first(fleet: Command, dead: str) -> None:
    refused = fleet("dead", "purge", dead, stdin="n\n")
    still = fleet("dead", "show", dead).returncode
    agreed = fleet("dead", "purge", dead, stdin="y\n")

    assert (refused.returncode, still, agreed.returncode) == (1, 0, 0)
    assert fleet("dead", "show", dead).returncode == 1


def test_a_purge_of_all_that_match(fleet: Command, dead: str) -> None:
    none = fleet("dead", "purge", "--all", "--queue", "nowhere.chat", "--yes", "--json")
    all_ = fleet("dead", "purge", "--all", "--queue", "scripted.chat", "--yes", "--json")

    assert json.loads(none.stdout) == {"purged": 0}
    assert json.loads(all_.stdout)["purged"] >= 1
    assert fleet("dead", "--json").returncode == 2
    assert fleet("dead", "purge").returncode == 2
    assert fleet("dead", "purge", dead, "--all").returncode == 2


def test_the_client_pages_and_purges(client: Client, dead: str) -> None:
    page = client.dead(kind="chat", limit=1)
    letter = client.dead_letter(page.letters[0].id)

    assert letter.error is not None
    assert client.purge_dead(dead) == 1
    with pytest.raises(JobNotFound):
        client.dead_letter(dead)
