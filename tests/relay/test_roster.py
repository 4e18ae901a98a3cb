"""What the roster remembers of backends without live workers, and for how long."""

from typing import Any

from support.relay import Relay, relay_on

from contract import redis_keys
from contract.roster import BackendReport, ModelReport, QueueReport, WorkerReport
from relay.roster import RosterStore


def report(*kinds: str, name: str = "w1", **backend: Any) -> WorkerReport:
    found = BackendReport(
        **{
            "name": "box", "type": "ollama", "endpoint": "http://box", "healthy": True,
            "models": (ModelReport(name="m", warm=True, context_length=8192),), **backend,
        }
    )  # fmt: skip
    queues = tuple(
        QueueReport(name=f"box.{kind}", kind=kind, slots=4, in_flight=1)  # type: ignore[arg-type]
        for kind in kinds
    )
    return WorkerReport(
        v=1, name=name, host="h", pid=1, started_at=0, backends=(found,), queues=queues
    )


async def left(relay: Relay, *reports: WorkerReport) -> None:
    """Workers reported and left."""
    for each in reports:
        await RosterStore(relay.connection).report(each)
    for each in reports:
        await relay.roster.leave(each.name)


async def test_a_backend_is_known_after_its_last_worker_by_what_does_not_change(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await left(relay, report("chat", "embed"))
        workers, (known,) = await relay.roster.read()

    assert workers == []
    assert known.slots == {"box.chat": 4, "box.embed": 4}
    assert known.backend.models == (ModelReport(name="m", context_length=8192),)
    assert (known.backend.healthy, known.backend.endpoint) == (False, "http://box")
    assert known.last_seen_at is not None


async def test_workers_for_different_kinds_are_remembered_together(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await left(relay, report("chat"), report("embed", name="w2"))
        await relay.roster.report(report("embed", name="w3"))
        _, (known,) = await relay.roster.read()

    assert known.slots == {"box.chat": 4}


async def test_a_server_that_is_down_does_not_change_what_is_known(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await left(relay, report("chat"), report("chat", healthy=False, models=(), name="w2"))
        _, (known,) = await relay.roster.read()

    assert [model.name for model in known.backend.models] == ["m"]


async def test_a_worker_that_drains_leaves_its_queues_to_the_next(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.roster.report(report("chat").model_copy(update={"draining": True}))
        workers, (known,) = await relay.roster.read()

    assert len(workers) == 1
    assert known.slots == {"box.chat": 4}


async def test_what_is_known_has_an_end_and_can_be_forgotten(redis_url: str) -> None:
    async with relay_on(redis_url, remember_s=60) as relay:
        await left(relay, report("chat"))
        ttls = [
            await relay.connection.command("TTL", key)
            for key in (redis_keys.KNOWN, redis_keys.known("box"))
        ]
        forgotten = [await relay.roster.forget("box") for _ in range(2)]
        _, known = await relay.roster.read()

    assert all(0 < ttl <= 60 for ttl in ttls)
    assert (forgotten, known) == ([True, False], [])


async def test_nothing_is_remembered_where_that_is_switched_off(redis_url: str) -> None:
    async with relay_on(redis_url, remember_s=0) as relay:
        await left(relay, report("chat"))
        _, known = await relay.roster.read()

    assert known == []


async def test_an_unchanged_backend_is_not_written_with_every_report(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.roster.report(report("chat"))
        await relay.connection.command("DEL", redis_keys.known("box"))
        busier = report("chat").model_copy(update={"started_at": 1.0})
        await relay.roster.report(busier)
        written = await relay.connection.command("EXISTS", redis_keys.known("box"))

    assert not written
