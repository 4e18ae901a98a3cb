"""HEAD on every path that GET works on, and on no other."""

from typing import Any

import httpx
import pytest
from support.shim import CHAT, problem, stage

from contract.events import Delta


@pytest.fixture
def http(shim: str) -> Any:
    with httpx.Client(base_url=shim, timeout=10) as client:
        yield client


def gets(http: httpx.Client) -> list[str]:
    """Every path for GET that has no parameter."""
    paths = http.get("/openapi.json").json()["paths"]
    found = [path for path, operations in paths.items() if "get" in operations]
    return [path for path in found if "{" not in path]


def test_the_head_is_that_of_a_get_and_there_is_no_body(http: httpx.Client) -> None:
    paths = gets(http)
    for path in (*paths, "/docs", "/openapi.json"):
        head = http.head(path)
        with http.stream("GET", path) as get:  # one of them never ends
            pass

        assert (path, head.status_code, head.content) == (path, get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    assert {"/v1/models", "/api/v1/jobs", "/api/tags", "/healthz"} <= set(paths)


def test_where_get_does_not_work_head_does_not_either(http: httpx.Client) -> None:
    answer = http.head("/v1/chat/completions")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_what_is_not_there_has_a_head_too(http: httpx.Client) -> None:
    assert http.head("/v1/models/nobody").status_code == 404
    assert http.head("/api/blobs/sha256:0").status_code == 404


async def test_a_look_at_the_head_of_its_events_ends_no_job(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {**CHAT, "on_disconnect": "cancel"}
        job = (await at.http.post("/api/v1/jobs/chat", json=body)).json()["id"]
        head = await at.http.head(f"/api/v1/jobs/{job}/events")
        claim = await at.relay.start_next("scripted.chat", "w1")
        assert claim is not None
        await at.relay.run(claim, Delta(content="a"))
        record = (await at.http.get(f"/api/v1/jobs/{job}")).json()

        assert head.headers["content-type"].startswith("text/event-stream")
        assert (head.status_code, record["status"]) == (200, "done")


async def test_a_method_that_does_not_work_is_named_as_it_was_sent(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        told = problem(await at.http.put("/api/v1/models"), 405, "method_not_allowed")

        assert told["detail"].startswith("PUT does not work")
