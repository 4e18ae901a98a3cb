"""Query fields that a native route does not know are refused; drop-in surfaces accept them."""

from typing import Any

import httpx
import pytest
from support.shim import stage
from websockets.asyncio.client import connect

from api_shim.http.openapi import is_drop_in
from contract.chat import ChatRequest, Message

ID = "0" * 32


def native(document: dict[str, Any], method: str) -> dict[str, list[str]]:
    """Every native path of a method, and the query fields that the document lists."""
    return {
        path: [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
        for path, operations in document["paths"].items()
        if path.startswith("/api/v1/") and not is_drop_in(path)
        for name, operation in operations.items()
        if name == method
    }


@pytest.mark.parametrize("method", ["get", "post", "delete"])
async def test_every_native_route_refuses_a_query_field_that_it_does_not_know(
    method: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        document = (await at.http.get("/openapi.json")).json()
        routes = native(document, method)
        answers: dict[str, httpx.Response] = {}
        for path in routes:
            url = path.replace("{id}", ID).replace("{name}", "x").replace("{kind}", "chat")
            body = None if method != "post" else {}
            answers[path] = await at.http.request(method, url, params={"nope": "1"}, json=body)

    assert routes
    for path, answer in answers.items():
        told = answer.json()
        assert (answer.status_code, told["code"]) == (422, "invalid_request"), (path, told)
        [error] = [each for each in told["errors"] if each["field"] == "nope"]
        assert error["where"] == "query"
        assert all(field in error["message"] for field in routes[path]), path


async def test_a_misspelt_filter_is_refused_with_the_right_spelling(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.get("/api/v1/jobs", params={"statsu": "running"})

    assert answer.json()["errors"][0]["remedy"] == "rename it to status"


async def test_jobs_are_listed_by_backend(shim: str, redis_url: str) -> None:
    request = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
    async with stage(shim, redis_url) as at:
        for queue in ("box.chat", "other.chat", "box.chat"):
            backend = queue.partition(".")[0]
            await at.relay.queue.enqueue(
                request.model_copy(update={"backend": backend}), queue=queue
            )
        of_box = (await at.http.get("/api/v1/jobs", params={"backend": "box"})).json()["jobs"]
        of_none = (await at.http.get("/api/v1/jobs", params={"backend": "nope"})).json()["jobs"]

    assert [job["backend"] for job in of_box] == ["box", "box"]
    assert of_none == []


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/files", "/v1/batches", "/api/tags", "/api/ps", "/api/version"]
)
async def test_drop_in_surfaces_accept_whatever_stands_in_the_query(
    path: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.get(path, params={"nope": "1", "api-version": "2026-01-01"})

    assert answer.status_code == 200


async def test_a_websocket_is_refused_with_the_unknown_field(shim: str) -> None:
    url = f"{shim.replace('http', 'ws')}/api/v1/jobs/{ID}/events?from=1"
    async with connect(url) as socket:
        await socket.wait_closed()

    assert "'from'" in (socket.close_reason or "")
