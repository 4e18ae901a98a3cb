"""Every operation of /openapi.json, with examples and with fuzzed requests, valid and invalid.

Every response is one that the document describes, and never an internal error. Half of the time the
request names something that exists: a scripted model, a job, a file, a batch, a response.

Subjects: api_shim/app.py, api_shim/http/openapi.py.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import httpx
import pytest
import schemathesis
from fuzz.judge import CHECKS, ON_PURPOSE, model_for, operations
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from support.fleet import fleet
from support.up import wait_until

CASES: Final = 12
"""Of each operation, beside its examples."""
OPERATIONS: Final = operations()
USUAL: Final = settings(derandomize=True, suppress_health_check=list(HealthCheck))
HELLO = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Stage:
    """A running fleet, an admin's key, and the names of what exists."""

    url: str
    headers: dict[str, str]
    names: dict[str, str]
    """What stands for a parameter of a path, by the path's beginning."""


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with fleet(tmp_path_factory.mktemp("fuzz"), "ollama", "scripted") as running:
        key = httpx.post(f"{running.url}/api/v1/keys", json={"tenant": "fuzz", "admin": True})
        headers = {"Authorization": f"Bearer {key.json()['key']}"}
        with httpx.Client(base_url=running.url, headers=headers, timeout=60) as http:
            names = things(http)
        yield Stage(running.url, headers, names)


def has_ended(http: httpx.Client, job: str) -> bool:
    return "ended_at" in http.get(f"/api/v1/jobs/{job}", params={"wait_s": 5}).json()


def things(http: httpx.Client) -> dict[str, str]:
    """One of everything that has an id."""
    chat = {"model": "scripted-echo", "messages": HELLO}
    job = http.post("/api/v1/jobs/chat", json=chat).json()["id"]
    dying = {**chat, "model": "scripted-story:fail=crash", "backend": "scripted", "max_attempts": 1}
    dead = http.post("/api/v1/jobs/chat", json=dying).json()["id"]
    for each in (job, dead):
        wait_until(partial(has_ended, http, each))
    file = http.post("/v1/files", files={"file": b"{}\n"}, data={"purpose": "batch"}).json()["id"]
    batch = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    return {
        "/api/v1/jobs": job,
        "/api/v1/dead": dead,
        "/api/v1/keys": http.post("/api/v1/keys", json={"tenant": "other"}).json()["id"],
        "/v1/files": file,
        "/v1/batches": http.post("/v1/batches", json=batch).json()["id"],
        "/v1/responses": http.post(
            "/v1/responses", json={"model": "scripted-echo", "input": "hello"}
        ).json()["id"],
        "/v1/models": "scripted-echo",
    }


def aim(case: schemathesis.Case, names: dict[str, str], *, stream: bool) -> None:
    """Let it ask for what there is, on a drop-in surface for a stream if it may."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        streams = {} if case.path.startswith("/api/v1") else {"stream": stream}
        case.body = {**case.body, "model": model_for(case.path), **streams}
    known = next((name for path, name in names.items() if case.path.startswith(path)), None)
    if known and case.path_parameters:
        case.path_parameters = dict.fromkeys(case.path_parameters, known)


def fault(at: Stage, case: schemathesis.Case) -> str:
    """The fault of ours in its answer, if it is one; raises for an answer that is undocumented."""
    if not case.path.startswith("/api/v1"):
        # A drop-in call stays open until then, as docs/clients.md says: as long as a month.
        case.headers.pop("X-Fleet-Not-Before", None)
    response = case.call(base_url=at.url, headers=at.headers, timeout=30)
    case.validate_response(response, checks=CHECKS)
    is_meant = response.status_code < 500 or any(code in response.text for code in ON_PURPOSE)
    return "" if is_meant else response.text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_examples_are_answered_as_documented(at: Stage, name: str, *, stream: bool) -> None:
    for example in OPERATIONS[name].get_strategies_from_examples():

        @given(example)
        @settings(USUAL, max_examples=1)
        def answered(case: schemathesis.Case) -> None:
            aim(case, at.names, stream=stream)
            case.headers.pop("X-Fleet-Backend", None)
            assert not fault(at, case)

        answered()


@pytest.mark.slow
@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_is_asked_is_answered_as_documented(
    at: Stage, name: str, mode: GenerationMode
) -> None:
    @given(OPERATIONS[name].as_strategy(generation_mode=mode))
    @settings(USUAL, max_examples=CASES)
    def answered(case: schemathesis.Case) -> None:
        chance = zlib.crc32(repr((case.path_parameters, case.body)).encode())
        if chance % 2:
            aim(case, at.names, stream=chance % 4 == 1)
        assert not fault(at, case)

    try:
        answered()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
