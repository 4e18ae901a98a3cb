"""The document at /openapi.json is complete and true."""

import json
import re
from typing import Any

import httpx
import jsonschema
import pytest
from support.dying import died
from support.shim import CHAT, stage

from api_shim.http.auth_middleware import OPEN_PATHS
from api_shim.http.openapi import is_drop_in
from contract.events import (
    Cancelled,
    Delta,
    Details,
    Done,
    Event,
    EventId,
    Failed,
    Frame,  # fmt: skip
    Image,
    Phase,
    Progress,
    Queued,
    Reset,
    Resumed,
    Started,
    Vectors,
)

METHODS = {"get", "post", "delete"}


@pytest.fixture
def document(session_shim: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{session_shim}/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def validator(document: dict[str, Any], name: str) -> jsonschema.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema.Draft202012Validator(schema)


def test_every_schema_is_one_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}

    assert names <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_operation_has_a_name_a_description_and_problems(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document)]

    assert len(ids) == len(set(ids)) >= 40
    for path, found in document["paths"].items():
        told = "application/json" if is_drop_in(path) else "application/problem+json"
        for operation in found.values():
            assert operation["description"]
            errors = {s: r for s, r in operation["responses"].items() if int(s) >= 400}
            assert "500" in errors
            for response in errors.values():
                assert list(response["content"]) == [told]
                assert response["description"]


def test_every_operation_is_summed_up_in_a_sentence(document: dict[str, Any]) -> None:
    for path, found in document["paths"].items():
        for method, operation in found.items():
            words = operation["summary"]

            assert words.endswith("."), (method, path, words)
            assert words[0].isupper(), (method, path, words)
            assert 1 < len(words.split()) < 16, (method, path, words)
            assert words.rstrip(".") in " ".join(operation["description"].split())


def test_no_two_operations_of_a_group_are_summed_up_alike(document: dict[str, Any]) -> None:
    told = [(operation["tags"][0], operation["summary"]) for operation in operations(document)]

    assert [pair for pair in told if told.count(pair) > 1] == []


def test_the_examples_of_requests_are_requests(document: dict[str, Any]) -> None:
    wrong = [
        error
        for operation in operations(document)
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for example in content.get("examples", {}).values()
        for error in jsonschema.Draft202012Validator(
            {**content["schema"], "components": document["components"]}
        ).iter_errors(example["value"])
    ]

    assert wrong == []


EVENTS: list[Event] = [
    Queued(queue="a.chat"), Started(attempt=1, worker="w", backend="b"), Phase(phase="loading"),
    Delta(content="x"), Progress(status="s"), Vectors(index=0, count=1, dimension=1, data=""),
    Image(index=0), Details(details={"a": 1}), Resumed(attempt=2, reason=""),
    Reset(attempt=2, reason=""), Done(), Failed(code="c", message="m"), Cancelled(by="b"),
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_every_event_is_as_documented(event: Event, document: dict[str, Any]) -> None:
    schema = validator(document, "Event")
    told = [json.loads(Frame.of(id, 1.5, event).body) for id in (EventId(1, 2), None)]

    assert [list(schema.iter_errors(each)) for each in told] == [[], []]


async def test_answers_are_as_documented(
    shim: str, redis_url: str, document: dict[str, Any]
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        dead = (await died(at.relay)).id
        accepted = await at.http.post("/api/v1/jobs/chat", json=CHAT)
        job = accepted.json()["id"]
        answers = [("JobAccepted", accepted.json())]
        for path, name in {
            f"/api/v1/jobs/{job}": "JobView",
            "/api/v1/jobs": "JobPage",
            "/api/v1/dead": "DeadPage",
            f"/api/v1/dead/{dead}": "DeadView",
            "/api/v1/backends": "BackendList",
            "/api/v1/models": "ModelList",
            "/api/v1/queues": "QueueList",
            "/api/v1/workers": "WorkerList",
            "/readyz": "Ready",
            "/healthz": "Alive",
            "/livez": "Alive",
            "/nothing": "Problem",
            "/api/v1/jobs?limit=x": "Problem",
        }.items():
            answers.append((name, (await at.http.get(path)).json()))

    for name, answer in answers:
        assert list(validator(document, name).iter_errors(answer)) == []


async def test_the_page_for_people_is_there(shim: str) -> None:
    async with httpx.AsyncClient(base_url=shim) as http:
        page = await http.get("/docs")

    assert "llm-fleet" in page.text
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"


def test_the_page_at_docs_needs_no_internet(session_shim: str) -> None:
    page = httpx.get(f"{session_shim}/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    answers = [httpx.get(f"{session_shim}{source}") for source in sources]

    assert sources
    assert not [source for source in sources if "//" in source]
    assert {200} == {answer.status_code for answer in answers}


def test_every_operation_but_the_probes_asks_for_a_key(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]

    assert [{name: []} for name in schemes] == document["security"]
    for path, operation in ((p, o) for p, all_ in document["paths"].items() for o in all_.values()):
        is_open = path in OPEN_PATHS
        assert (operation.get("security") == []) is is_open
        assert ({"401", "403"} <= set(operation["responses"])) is not is_open
