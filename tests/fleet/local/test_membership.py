"""Backends that come and go while `fleet up` runs; a key is never seen outside of their workers."""

import json
import stat
from collections.abc import Iterator

import httpx
import psutil
import pytest
from support.up import Command, Up, wait_until

from fleet import Client

KEY = "sk-sesame-4711"


@pytest.fixture(scope="module")
def dsn(box: str) -> str:
    return f"ollama://{KEY}@{box}"


@pytest.fixture(scope="module")
def added(up: Up, dsn: str) -> Iterator[httpx.Response]:
    """The answer to adding a backend `late`, which is there until the module's end."""
    first = up.status["urls"][0]
    with httpx.Client(base_url=first, timeout=60) as http:
        yield http.post("/api/v1/backends", json={"name": "late", "dsn": dsn})
        http.delete("/api/v1/backends/late")


@pytest.fixture
def http(up: Up) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=up.status["urls"][-1], timeout=60) as client:
        yield client


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_an_added_backend_is_on_the_roster_and_answers(added: httpx.Response, up: Up) -> None:
    view = added.json()

    assert (added.status_code, view["name"], view["healthy"]) == (201, "late", True)
    assert "scripted-echo" in view["models"]
    with Client(up.url) as fleet:
        job = fleet.enqueue(
            "chat",
            model="scripted-echo",
            backend="late",
            messages=[{"role": "user", "content": "you came late"}],
        )
        assert job.result(30).content == "you came late"


def test_its_key_is_nowhere_but_with_its_worker(
    added: httpx.Response, up: Up, http: httpx.Client
) -> None:
    paths = ("backends", "models", "queues", "workers", "jobs")
    answers = [http.get(f"/api/v1/{path}").text for path in paths]
    files = [path for path in up.folder.rglob("*") if path.is_file()]
    written = [path for path in files if KEY.encode() in path.read_bytes()]
    running = psutil.Process(up.process.pid).children(recursive=True)
    holders = [each.environ() for each in running if KEY in str(each.environ())]
    shown = [each.pid for each in running if KEY in " ".join(each.cmdline())]

    assert added.is_success
    assert any(path.name.endswith(".aof") for path in files)
    assert (written, shown) == ([], [])
    assert KEY not in added.text + "".join(answers) + "".join(up.lines)
    assert [each["FLEET_WORKER_BACKEND"] for each in holders] == ["late"]


def test_a_name_is_taken_whoever_has_it(
    added: httpx.Response, http: httpx.Client, dsn: str
) -> None:
    for name in ("late", "scripted"):
        refused = http.post("/api/v1/backends", json={"name": name, "dsn": dsn})

        assert code(refused) == (409, "name_taken")
        assert KEY not in refused.text
    assert added.is_success


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "x", "dsn": f"nonsense://{KEY}@h"}, "no such type"),
        ({"name": "x", "dsn": KEY}, "a backend looks like"),
        ({"name": "x", "dsn": f"openai://{KEY}@h:port/v1"}, "host or port"),
        ({"name": "x", "dsn": f"openai://a?{KEY}@h/v1"}, "percent-encoded"),
        ({"name": "x", "dsn": f"openai://a/{KEY}@h/v1"}, "percent-encoded"),
        ({"name": "x", "dsn": f"openai://h?slots={KEY}"}, "slots"),
        ({"name": "x-y", "dsn": f"openai://{KEY}@h"}, "lower-case letters"),
        ({"name": "x/../y", "dsn": f"openai://{KEY}@h"}, "name"),
        ({"name": "x", "dsn": f"openai://{KEY}@h", "key": KEY}, "key"),
        ({"name": "x"}, "dsn"),
    ],
)
def test_a_wrong_dsn_is_a_problem_that_names_no_key(
    http: httpx.Client, body: dict[str, str], words: str
) -> None:
    refused = http.post("/api/v1/backends", json=body)

    assert code(refused) == (422, "invalid_request")
    assert words in refused.json()["detail"]
    assert KEY not in refused.text


def test_a_removed_backend_is_gone_and_its_jobs_wait(up: Up, http: httpx.Client, box: str) -> None:
    body = {"name": "brief", "dsn": f"ollama://{box}?slots=1"}
    slow = {
        "model": "scripted-story:chunks=2000,rate=2",
        "backend": "brief",
        "messages": [{"role": "user", "content": "go"}],
    }
    assert http.post("/api/v1/backends", json=body).status_code == 201
    pid = next(
        w["pid"] for w in http.get("/api/v1/workers").json()["workers"] if "brief" in w["name"]
    )
    with Client(up.url) as fleet:
        job = fleet.enqueue("embed", model="scripted-embed:rate=1", backend="brief", input=["a"])
        job.result(30)
        removed = http.delete("/api/v1/backends/brief")
        late = http.post("/api/v1/jobs/chat", params={"enqueue_anyway": True}, json=slow).json()

        assert (removed.status_code, removed.json()["workers"]) == (200, 1)
        assert [each.name for each in fleet.backends() if each.name == "brief"] == []
        assert not psutil.pid_exists(pid)
        assert fleet.job(late["id"]).view().status == "queued"
        fleet.job(late["id"]).cancel()
    assert code(http.delete("/api/v1/backends/brief")) == (404, "unknown_backend")


def test_a_backend_that_does_not_answer_is_added_and_says_why(fleet: Command) -> None:
    added = fleet("backends", "add", "dead=ollama://127.0.0.1:1", "--json")
    listed = fleet("backends").stdout
    found = [json.loads(line) for line in fleet("doctor", "--json").stdout.splitlines()]
    removed = fleet("backends", "remove", "dead")

    assert (added.returncode, json.loads(added.stdout)["healthy"]) == (1, False)
    assert "no: " in listed
    assert [each["state"] for each in found if each["what"] == "roster dead"] == ["broken"]
    assert removed.returncode == 0


def test_only_this_machine_may_ask(http: httpx.Client, dsn: str) -> None:
    body = {"name": "x", "dsn": dsn}
    for headers in ({"x-forwarded-for": "10.0.0.9"}, {"host": "evil.example"}, {"via": "1.1 p"}):
        assert code(http.post("/api/v1/backends", json=body, headers=headers)) == (403, "not_local")
        assert code(http.delete("/api/v1/backends/scripted", headers=headers)) == (403, "not_local")


def test_a_web_page_elsewhere_cannot_ask(http: httpx.Client, dsn: str) -> None:
    body = json.dumps({"name": "x", "dsn": dsn})
    refused = http.post("/api/v1/backends", content=body, headers={"content-type": "text/plain"})

    assert code(refused) == (415, "unsupported_media_type")


def test_the_socket_and_the_jobs_are_their_owners_alone(up: Up) -> None:
    files = up.folder / "appendonlydir"

    assert stat.S_IMODE((up.folder / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(files.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in files.iterdir()} == {0o600}


def test_the_command_adds_lists_and_removes(fleet: Command, box: str, up: Up) -> None:
    added = fleet("backends", "add", "cli=-", stdin=f"ollama://{KEY}@{box}\n")
    listed = fleet("backends", "list", "--json").stdout
    again = fleet("backends", "add", f"cli=ollama://{box}")
    removed = fleet("backends", "remove", "cli", "--json")

    assert (added.returncode, again.returncode) == (0, 1)
    assert "cli" in {json.loads(line)["name"] for line in listed.splitlines()}
    assert "choose another name" in again.stderr
    gone = {"name": "cli", "workers": 1, "forgotten": True, "waiting": 0}
    assert json.loads(removed.stdout) == gone
    assert wait_until(lambda: up.said("backend cli is removed"))


@pytest.mark.parametrize("words", [("add", "x"), ("add", "x="), ("add", "x=nonsense"), ("remove",)])
def test_wrong_usage_is_2(fleet: Command, words: tuple[str, ...]) -> None:
    assert fleet("backends", *words).returncode == 2
