"""What needs attention, and what does not."""

from typing import Any

from support.keys import keyed
from support.redis_server import RedisServer
from support.shim import stage

from api_shim.overview.concerns import Losses, concerns_of
from api_shim.overview.fleet_state import BackendSummary, QueueSummary, RedisState
from contract.roster import QueuePause, QueueReport, WorkerReport


def queue(**fields: Any) -> QueueSummary:
    given = {
        "name": "box.chat", "depth": 0, "urgent": 0, "interactive": 0, "delayed": 0,
        "scheduled": 0, "running": 0, "slots": 1, "workers": 1, "is_known": False, "tokens": 0,
        "oldest_s": None, "drain_per_s": None, "eta_s": None, "ended": (), "tenants": {},
        "paused": None, "windows": (), **fields,
    }  # fmt: skip
    return QueueSummary(**given)


def backend(**fields: Any) -> BackendSummary:
    given = {
        "name": "box", "type": "ollama", "healthy": True, "error": None, "version": None,
        "circuit_open_until": None, "endpoints": ("a",), "endpoints_down": (), "capabilities": (),
        "workers": 1, "models": 1, "warm": (), "loading": (), **fields,
    }  # fmt: skip
    return BackendSummary(**given)


def codes(*queues: QueueSummary, **others: Any) -> list[tuple[str, str]]:
    found = concerns_of(
        queues,
        others.get("backends", ()),
        others.get("workers", ()),
        others.get("losses"),
        others.get("redis"),
    )
    return [(each.level, each.code) for each in found]


def test_a_fleet_that_works_is_no_concern() -> None:
    calm = codes(
        queue(depth=9, urgent=9, oldest_s=10.0),
        backends=(backend(),),
        losses=Losses(dead=3, dead_lately=0, unreadable=0),
        redis=RedisState(used_bytes=50, max_bytes=100),
    )

    assert calm == []


def test_jobs_that_no_worker_can_start_come_first() -> None:
    losses = Losses(dead=3, dead_lately=1, unreadable=2)
    found = codes(queue(depth=1, urgent=1, workers=0), losses=losses)

    assert found == [
        ("critical", "no_worker"),
        ("warning", "dead_letters"),
        ("warning", "unreadable_messages"),
    ]


def test_jobs_that_wait_for_a_worker_to_start_are_told_apart() -> None:
    asleep = backend(workers=0, healthy=False, error="no worker is live")

    assert codes(queue(depth=1, workers=0, is_known=True), backends=(asleep,)) == [
        ("warning", "starts_worker")
    ]
    assert codes(queue(workers=0, is_known=True), backends=(asleep,)) == []


def test_batch_jobs_may_wait_for_hours() -> None:
    assert codes(queue(depth=1, urgent=0, oldest_s=9000.0)) == []
    assert codes(queue(depth=1, urgent=1, oldest_s=9000.0)) == [("warning", "oldest_waits")]


def test_circuits_of_backends_and_of_models_are_concerns() -> None:
    report = QueueReport(
        name="box.chat", kind="chat", slots=1, in_flight=0, model_circuits={"m": 1e9}
    )
    worker = WorkerReport(
        v=1, name="w", host="h", pid=1, started_at=0, backends=(), queues=(report,)
    )

    assert codes(backends=(backend(circuit_open_until=1e9, healthy=False),)) == [
        ("critical", "circuit_open")
    ]
    assert codes(backends=(backend(healthy=False),)) == [("critical", "backend_down")]
    assert codes(backends=(backend(endpoints_down=("a",)),)) == [("warning", "backend_down")]
    assert codes(workers=(worker,)) == [("warning", "circuit_open")]


def test_full_memory_is_critical_and_none_without_a_bound() -> None:
    assert codes(redis=RedisState(used_bytes=96, max_bytes=100)) == [("critical", "redis_memory")]
    assert codes(redis=RedisState(used_bytes=85, max_bytes=100)) == [("warning", "redis_memory")]
    assert codes(redis=RedisState(used_bytes=85, max_bytes=None)) == []


async def test_a_tenant_sees_its_own_jobs_by_name_and_nothing_of_dead_letters(
    own_redis: RedisServer,
) -> None:
    with keyed(own_redis.url) as at:
        async with stage(at.url, own_redis.url) as behind, at.caller("red") as red:
            await behind.announce(capabilities=("chat",))
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            await red.post("/api/v1/jobs/chat", json=body)
            async with at.caller("blue") as blue:
                await blue.post("/api/v1/jobs/chat", json=body)
                state = (await blue.get("/api/v1/overview")).json()
                who = (await blue.get("/api/v1/caller")).json()
            async with at.admin as boss:
                whole = (await boss.get("/api/v1/overview")).json()

    assert (state["waiting"], state["dead"], state["redis"]) == (2, None, None)
    assert [each["tenants"] for each in state["queues"] if each["depth"]] == [{"blue": 1}]
    assert [each["tenants"] for each in whole["queues"] if each["depth"]] == [{"blue": 1, "red": 1}]
    assert (who["tenant"]["name"], who["tenant"]["admin"], who["needs_key"]) == (
        "blue",
        False,
        True,
    )


def test_a_pause_of_an_admin_is_told_while_jobs_wait_and_nothing_else_of_that_queue() -> None:
    by_admin, by_windows = QueuePause(by="admin"), QueuePause(by="windows")
    waits: dict[str, Any] = {"depth": 3, "urgent": 3, "oldest_s": 9e5, "workers": 0}

    assert codes(queue(**waits, paused=by_admin)) == [("warning", "paused")]
    assert codes(queue(**waits, paused=by_windows)) == []
    assert codes(queue(paused=by_admin)) == []
