"""Models and backends of a key: what it may not use is listed nowhere and runs nowhere."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.shim import problem, stage

from api_shim.submission.caller_rights import visible
from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.roster import BackendReport, QueueReport, WorkerReport
from relay.roster import Roster

MESSAGES = [{"role": "user", "content": "hello"}]
SECRETS = ("big", "gpu")
"""Names that a key of small models on `box` must see nowhere."""


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    """Not on the session's Redis: its shim would take what the next test empties for a loss."""
    with keyed(own_redis.url) as shim:
        yield shim


@asynccontextmanager
async def two_backends(fleet: Keyed, own_redis: RedisServer) -> AsyncIterator[None]:
    """Two backends: `box` has small-1, small-2 and big-1, `gpu` has small-1 and big-2."""
    async with stage(fleet.url, own_redis.url) as here, fleet.admin as admin:
        await here.announce("box", "small-1", "small-2", "big-1")
        await here.announce("gpu", "small-1", "big-2")
        for name, model, fallbacks in (
            ("fast", "small-1", []),
            ("best", "big-1", []),
            ("small-best", "big-1", ["small-2"]),
        ):
            alias = {"model": model, "fallbacks": fallbacks}
            assert (await admin.put(f"/api/v1/aliases/{name}", json=alias)).is_success
        yield


def limited(fleet: Keyed, **fields: Any) -> httpx.AsyncClient:
    return fleet.caller("a", **{"models": ["small*"], "backends": ["box"], **fields})


def chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": MESSAGES, **fields}


LISTS = (
    "/api/v1/models", "/api/v1/backends", "/api/v1/workers", "/api/v1/queues", "/api/v1/scale",
    "/api/v1/overview", "/api/v1/aliases", "/api/tags", "/v1/models",
)  # fmt: skip


async def test_no_list_has_what_a_key_may_not_use(fleet: Keyed, own_redis: RedisServer) -> None:
    async with two_backends(fleet, own_redis), limited(fleet) as a, fleet.admin as admin:
        for path in LISTS:
            theirs, whole = (await a.get(path)).text, (await admin.get(path)).text

            assert any(name in whole for name in SECRETS), path
            assert not any(name in theirs for name in SECRETS), (path, theirs)


async def test_lists_keep_what_a_key_may_use(fleet: Keyed, own_redis: RedisServer) -> None:
    async with two_backends(fleet, own_redis), limited(fleet) as a:
        tags = [each["name"] for each in (await a.get("/api/tags")).json()["models"]]
        ids = [each["id"] for each in (await a.get("/v1/models")).json()["data"]]

        assert sorted(tags) == sorted(ids) == ["fast", "small-1", "small-2", "small-best"]
        assert (await a.get("/v1/models/small-1")).is_success
        assert (await a.get("/v1/models/big-1")).status_code == 404
        alias = (await a.get("/api/v1/aliases/small-best")).json()
        assert [each["model"] for each in alias["targets"]] == ["small-2"]
        assert (await a.get("/api/v1/aliases/best")).status_code == 404


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    (chat("big-1"), "big-1"),
    (chat("nowhere"), "nowhere"),
    (chat("best"), "best"),
    (chat("small-1", backend="gpu"), "gpu"),
    (chat("small-1", backend="nowhere"), "nowhere"),
    (chat("big-1", backend="box"), "big-1"),
    (chat("small-1", on_missing="pull"), "models:write"),
)


async def test_a_request_for_what_it_may_not_use_is_refused_by_name(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    async with two_backends(fleet, own_redis), limited(fleet) as a:
        for body, names in REFUSED:
            for query in ("", "?enqueue_anyway=true"):
                refused = await a.post(f"/api/v1/jobs/chat{query}", json=body)

                assert names in problem(refused, 403, "not_allowed")["detail"]


@pytest.mark.parametrize(("allow", "kept"), [([], None), (["models:write"], 0)])
async def test_how_long_a_model_stays_in_memory_is_for_who_may_load(
    fleet: Keyed, own_redis: RedisServer, allow: list[str], kept: float | None
) -> None:
    asked: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/api/v1/jobs/chat", chat("m", keep_alive_s=0)),
        ("/api/v1/jobs/embed", {"model": "m", "input": ["a"], "keep_alive_s": 0}),
    )
    async with (
        stage(fleet.url, own_redis.url) as here,
        fleet.caller("a", permissions=["chat", "embed", *allow]) as a,
    ):
        await here.announce("box", "m")
        for path, body in asked:
            job = (await a.post(path, json=body)).json()["id"]
            request = await here.relay.records.request(job)

            assert isinstance(request, ChatRequest | EmbedRequest)
            assert request.keep_alive_s == kept


async def test_a_refused_alias_names_the_backends_of_the_models_that_are_allowed(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    async with two_backends(fleet, own_redis), limited(fleet) as a, fleet.admin as admin:
        alias = {"model": "small-1", "backend": "gpu", "fallbacks": ["big-2"]}
        assert (await admin.put("/api/v1/aliases/elsewhere", json=alias)).is_success
        refused = await a.post("/api/v1/jobs/chat", json=chat("elsewhere"))

    detail = problem(refused, 403, "not_allowed")["detail"]
    assert detail.startswith("backend: this key may not use gpu, only box:")


async def test_a_job_runs_where_its_key_may(fleet: Keyed, own_redis: RedisServer) -> None:
    async with two_backends(fleet, own_redis), limited(fleet) as a:
        for model, queue in (
            ("small-1", "box.chat"),
            ("fast", "box.chat"),
            ("small-1:latest", "box.chat"),
        ):
            accepted = await a.post("/api/v1/jobs/chat", json=chat(model))

            assert (accepted.status_code, accepted.json()["queue"]) == (202, queue), accepted.text
        record = (await a.post("/api/v1/jobs/chat", json=chat("small-best"))).json()
        assert (await a.get(f"/api/v1/jobs/{record['id']}")).json()["model"] == "small-2"


async def test_an_alias_that_the_list_names_leads_wherever_it_leads(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    async with two_backends(fleet, own_redis), limited(fleet, models=["best"]) as a:
        ids = [each["id"] for each in (await a.get("/v1/models")).json()["data"]]
        accepted = await a.post("/api/v1/jobs/chat", json=chat("best"))

        assert ids == ["best"]
        assert accepted.status_code == 202, accepted.text
        problem(await a.post("/api/v1/jobs/chat", json=chat("big-1")), 403, "not_allowed")


async def test_what_changes_models_is_bound_to_their_names(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    may = {"permissions": ["models:read", "models:write", "models:admin"]}
    async with two_backends(fleet, own_redis), limited(fleet, **may) as a:
        for kind, body in (
            ("delete", {"model": "big-1"}),
            ("copy", {"model": "big-1", "destination": "small-3"}),
            ("copy", {"model": "small-1", "destination": "big-1"}),
            ("create", {"model": "small-3", "source": "big-1"}),
            ("pull", {"model": "big-9"}),
            ("unload", {"model": "*"}),
            ("running", {}),
        ):
            refused = await a.post(f"/api/v1/jobs/{kind}", json={**body, "backend": "box"})

            problem(refused, 403, "not_allowed")
        copied = await a.post(
            "/api/v1/jobs/copy", json={"model": "small-1", "destination": "small-3"}
        )
        assert copied.status_code == 202, copied.text


async def test_a_direct_route_is_under_the_same_rules(fleet: Keyed, own_redis: RedisServer) -> None:
    async with (
        two_backends(fleet, own_redis),
        limited(fleet) as a,
        fleet.caller("b", permissions=["embed"]) as b,
    ):
        assert (await a.post("/v1/chat/completions", json=chat("big-1"))).status_code == 403
        refused = await b.post("/v1/chat/completions", json=chat("small-1"))

        assert refused.status_code == 403
        assert "permission chat" in refused.json()["error"]["message"]


async def test_a_batch_needs_what_its_lines_need(fleet: Keyed, own_redis: RedisServer) -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": chat("m")}
    async with (
        two_backends(fleet, own_redis),
        fleet.caller("a", permissions=["files", "batches", "embed"]) as a,
    ):
        form = {"file": ("in.jsonl", json.dumps(line).encode())}
        file = (await a.post("/v1/files", data={"purpose": "batch"}, files=form)).json()["id"]
        wish = {"input_file_id": file, "completion_window": "24h", "endpoint": line["url"]}
        refused = await a.post("/v1/batches", json=wish)
        accepted = await a.post("/v1/batches", json={**wish, "endpoint": "/v1/embeddings"})

        assert (refused.status_code, accepted.status_code) == (403, 200), accepted.text


def test_no_report_of_a_worker_names_a_model_that_is_not_allowed() -> None:
    queue = QueueReport(
        name="box.chat", kind="chat", slots=1, in_flight=0, loading="big#ctx=8",
        model_circuits={"big": 1.0, "small": 2.0},
    )  # fmt: skip
    backend = BackendReport(name="box", type="scripted", endpoint="x", healthy=True)
    worker = WorkerReport(
        v=1, name="w", host="h", pid=1, started_at=0, backends=(backend,), queues=(queue,)
    )
    (seen,) = visible(Roster([worker], []), ("small",), None).workers

    assert seen.queues[0].loading is None
    assert seen.queues[0].model_circuits == {"small": 2.0}
