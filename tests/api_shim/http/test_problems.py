"""Every error is a problem document, whatever was wrong."""

import logging
from typing import Any

import httpx
import pytest
from support.shim import CHAT, eventually, problem, stage

from api_shim.app import create_app
from api_shim.http.problems import problem_of, status_of
from api_shim.settings import ShimSettings
from contract import errors
from contract.errors import FleetError


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "no_such_path"),
        ("GET", "/api/v1/nothing", 404, "no_such_path"),
        ("GET", "/api/v1/jobs/", 404, "no_such_path"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("PATCH", "/api/v1/jobs/x", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_are_problems_too(
    method: str, path: str, status: int, code: str, shim: str
) -> None:
    async with httpx.AsyncClient(base_url=shim) as http:
        problem(await http.request(method, path), status, code)


async def test_a_request_id_is_echoed_or_made(shim: str) -> None:
    async with httpx.AsyncClient(base_url=shim) as http:
        given = await http.get("/healthz", headers={"X-Request-Id": "trace-1"})
        made = await http.get("/healthz")
        unsafe = await http.get("/healthz", headers={"X-Request-Id": "a b" * 99})

        assert given.headers["x-request-id"] == "trace-1"
        assert len(made.headers["x-request-id"]) == len(unsafe.headers["x-request-id"]) == 32


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [each.__dict__["facts"] for each in caplog.records if "shim" in each.name]


async def test_the_log_has_a_line_a_request_and_no_payload(
    shim: str, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with stage(shim, redis_url) as at:
            await at.announce()
            body = {**CHAT, "messages": [{"role": "user", "content": "secret"}]}
            answer = await at.http.post("/api/v1/jobs/chat", json=body)
            await at.http.post("/api/v1/jobs/chat?x=hidden", json=body)
            await at.http.post("/api/v1/jobs/chat", json={**body, "model": ["secret"]})
        await eventually(lambda: len(lines(caplog)) == 3)

    told = lines(caplog)
    assert [each["status"] for each in told] == [202, 422, 422]
    assert {each["path"] for each in told} == {"/api/v1/jobs/chat"}
    assert told[0]["job"] == answer.json()["id"]
    assert "secret" not in caplog.text + str(told)
    assert "hidden" not in str(told)


def classes(root: type[FleetError]) -> list[type[FleetError]]:
    children = (each for each in root.__subclasses__() if each.__module__ == root.__module__)
    return [root, *(found for child in children for found in classes(child))]


@pytest.mark.parametrize("kind", classes(errors.FleetError))
def test_every_error_of_the_contract_has_a_problem(kind: type[FleetError]) -> None:
    told = problem_of(kind("words"), {})

    assert (told.code, told.detail, told.retryable) == (kind.code, "words", kind.retryable)
    assert 400 <= told.status == status_of(kind) < 600
    assert (told.retry_after_s is not None) == kind.retryable


def test_an_error_that_is_not_ours_is_reported_without_details() -> None:
    told = problem_of(RuntimeError("password"), {"state": {"request_id": "r"}})

    assert (told.status, told.code, told.request_id) == (500, "internal_error", "r")
    assert "password" not in told.model_dump_json()


async def test_when_our_own_code_raises_the_response_is_a_problem_and_the_log_has_the_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = create_app(ShimSettings())  # nobody has started it, so it has no relay
    transport = httpx.ASGITransport(broken)
    async with httpx.AsyncClient(transport=transport, base_url="http://shim") as http:
        problem(await http.get("/readyz"), 500, "internal_error")

    broke = caplog.records[0].__dict__["facts"]
    assert broke["error"] == "AttributeError"
    assert "has no attribute" not in f"{broke} {caplog.text}"
