"""Idempotency keys: one job per key, also in a race, and their time to live."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.chat import Message
from contract.conversations import ConversationPolicy
from contract.errors import KeyReused, RelayUnavailable
from contract.jobs import JobRecord, QueuePlace
from contract.models import PullRequest
from contract.tenants import DEFAULT_TENANT
from relay.connection import Connection
from relay.idempotency import Hold, Idempotency, Key
from relay.order import Arrival, Bounds
from relay.queue import Once
from relay.scripts import queues
from relay.scripts.jobs import HeldKey

ASK = chat("once", metadata={"a": "1", "b": "2"})


def key(request: Any = ASK, tenant: str = "default", value: str = "order-17") -> Key:
    return Key.of(tenant, value, request)


async def ttl_s(relay: Relay, name: str) -> int:
    return int(await relay.connection.command("TTL", name))


async def make_due(relay: Relay) -> None:
    await relay.connection.command("ZADD", redis_keys.IDEMPOTENCY, 0, key().name)


def test_the_order_of_fields_does_not_change_a_key() -> None:
    turned = chat("once", metadata={"b": "2", "a": "1"})

    assert key() == key(turned)
    assert key().fingerprint != key(chat("twice")).fingerprint
    assert key().fingerprint != Key.of("default", "order-17", ASK, "anyway").fingerprint


def test_an_explicit_default_is_the_same_request() -> None:
    said = type(ASK)(
        model="m", messages=(Message(role="user", content="once"),), max_attempts=3,
        metadata={"a": "1", "b": "2"},
    )  # fmt: skip

    assert key() == key(said)


def test_redis_does_not_hold_the_clients_key() -> None:
    assert "secret" not in key(value="secret-17").name


async def test_one_of_many_racing_requests_holds_the_key(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, relay_on(redis_url) as other:
        shims = [Idempotency(each.connection) for each in (relay, other)]
        holds = await asyncio.gather(
            *(shim.hold(key(), f"q{i}.chat") for i in range(10) for shim in shims)
        )

        assert len({(hold.job_id, hold.queue) for hold in holds}) == 1
        assert [hold.is_new for hold in holds].count(True) == 1


async def test_a_key_is_its_tenants_own(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        keys = Idempotency(relay.connection)
        ours, theirs = await keys.hold(key(), QUEUE), await keys.find(key(tenant="other"))

        assert ours.is_new
        assert theirs is None


async def test_another_request_is_refused_by_name(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        keys = Idempotency(relay.connection)
        hold = await keys.hold(key(), QUEUE)
        with pytest.raises(KeyReused, match=hold.job_id):
            await keys.find(key(chat("other")))

        assert (await keys.hold(key(), "elsewhere.chat")) == hold._replace(is_new=False)


async def test_a_key_whose_job_was_refused_is_free_again(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit=1) as relay:
        keys = Idempotency(relay.connection)
        hold = await keys.hold(key(), QUEUE)
        await keys.release(key(), hold)

        assert await keys.find(key()) is None
        assert not await relay.connection.command("ZCARD", redis_keys.IDEMPOTENCY)


async def test_a_key_whose_job_another_request_enqueued_is_kept(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        keys = Idempotency(relay.connection)
        hold = await keys.hold(key(), QUEUE)
        await relay.queue.enqueue(ASK, queue=QUEUE, job_id=hold.job_id)
        await keys.release(key(), hold)

        assert await keys.find(key()) is not None


async def test_a_key_lives_as_long_as_its_job_waits(redis_url: str) -> None:
    async with relay_on(redis_url, log_ttl_s=60) as relay:
        keys = Idempotency(relay.connection)
        hold = await keys.hold(key(), QUEUE)
        await relay.queue.enqueue(ASK, queue=QUEUE, job_id=hold.job_id)
        await relay.connection.command("EXPIRE", key().name, 5)
        await make_due(relay)
        await relay.reconciler.reconcile()

        assert await ttl_s(relay, key().name) > 60
        assert await relay.connection.command("ZSCORE", redis_keys.IDEMPOTENCY, key().name)


async def test_a_key_ends_with_the_record_of_its_job(redis_url: str) -> None:
    async with relay_on(redis_url, log_ttl_s=60) as relay:
        keys = Idempotency(relay.connection)
        hold = await keys.hold(key(), QUEUE)
        await relay.queue.enqueue(ASK, queue=QUEUE, job_id=hold.job_id)
        await relay.queue.cancel(hold.job_id, by="caller")
        await make_due(relay)
        await relay.reconciler.reconcile()

        record_s = await ttl_s(relay, redis_keys.record(hold.job_id))
        assert record_s - 1 <= await ttl_s(relay, key().name) <= record_s
        assert not await relay.connection.command("ZCARD", redis_keys.IDEMPOTENCY)


async def test_a_key_of_a_record_that_is_gone_is_free_for_any_request(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        keys = Idempotency(relay.connection)
        await keys.hold(key(), QUEUE)
        await relay.connection.command("HSET", key().name, "at", 0)
        other = await keys.hold(key(chat("other")), QUEUE)
        await relay.connection.command("HSET", key().name, "at", 0)
        await make_due(relay)
        await keys.renew()

        assert other.is_new
        assert await keys.find(key()) is None


async def once(relay: Relay, job_id: str) -> tuple[JobRecord, QueuePlace] | HeldKey:
    its = Once(job_id, key(), Idempotency(relay.connection).times)
    return await relay.queue.enqueue_once(ASK, its, queue=QUEUE, tenant=DEFAULT_TENANT)


async def test_a_new_job_with_a_key_is_enqueued_in_one_trip(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[int] = []
    send = Connection.calls

    async def counted(self: Connection, calls: Sequence[Any]) -> Any:
        trips.append(len(calls))
        return await send(self, calls)

    async with relay_on(redis_url) as relay:
        await relay.queue.positions.recent_rate(QUEUE)
        monkeypatch.setattr(Connection, "calls", counted)
        job = await once(relay, "a" * 32)

        assert not isinstance(job, HeldKey)
        assert trips == [2]
        assert (await relay.claim()).record.id == "a" * 32


async def test_a_repeat_in_a_race_leaves_nothing_in_the_queue(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, relay_on(redis_url) as other:
        ids = [f"{number:032x}" for number in range(12)]
        jobs = await asyncio.gather(*(once([relay, other][i % 2], id) for i, id in enumerate(ids)))
        new = [job[0].id for job in jobs if not isinstance(job, HeldKey)]
        held = {job.job_id for job in jobs if isinstance(job, HeldKey)}

        assert len(new) == 1
        assert held == set(new)
        assert await relay.connection.command("ZCARD", redis_keys.backlog(QUEUE)) == 1
        assert await relay.connection.command("HLEN", redis_keys.facts(QUEUE)) == 1
        assert await relay.connection.command("ZCARD", redis_keys.LIVE) == 1


async def test_a_worker_that_claims_a_repeat_before_it_is_removed_runs_nothing(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await once(relay, "a" * 32)
        assert await relay.claim()
        arriving = Arrival(
            QUEUE, "b" * 32, '{"v":1,"attempt":1,"tokens":1,"slack":0,"tenant":"t"}', 1.0,
            "standard t", "t", Bounds(None, None, None, None, None, None),
        )  # fmt: skip
        await relay.connection.call(queues.enqueue(arriving, "{}"))

        assert await relay.start_next(QUEUE, "w2") is None
        assert await relay.connection.command("HKEYS", redis_keys.holders(QUEUE)) == [b"a" * 32]


@pytest.mark.parametrize("begins", ["before the release", "after the release"])
async def test_a_job_that_is_claimed_before_it_has_a_record_runs_nevertheless(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    """A server that had lost one of the two scripts ran them so; the job was lost for 10 s."""
    async with relay_on(redis_url) as relay, relay_on(redis_url) as worker:
        await relay.queue.positions.recent_rate(QUEUE)
        really, release = relay.connection.calls, worker.leases.release
        of_worker, claimed = worker.claims._leases, asyncio.Event()

        async def second_first(calls: Sequence[Any]) -> Any:
            monkeypatch.setattr(relay.connection, "calls", really)
            await really(calls[1:])
            claiming = asyncio.create_task(worker.start_next(QUEUE, "w1"))
            await claimed.wait()
            if begins == "after the release":
                assert await claiming is None
            begun.set_result(await really(calls))
            started.append(await claiming)
            return begun.result()

        async def held_up(*arguments: Any) -> str | None:
            monkeypatch.setattr(of_worker, "release", release)
            claimed.set()
            if begins == "before the release":
                await begun
            return await release(*arguments)

        begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        started: list[Any] = []
        monkeypatch.setattr(relay.connection, "calls", second_first)
        monkeypatch.setattr(of_worker, "release", held_up)
        job = await once(relay, "a" * 32)
        (its,) = started
        its = its or await worker.claim("w1")

        assert not isinstance(job, HeldKey)
        assert its.record.id == "a" * 32
        assert await worker.start_next(QUEUE, "w2") is None


@pytest.mark.parametrize("ends", [True, False], ids=["has ended", "runs"])
async def test_a_key_of_a_pull_that_joins_another_is_bound_to_that_at_once(
    redis_url: str, *, ends: bool
) -> None:
    """A second request with the key knew its first job, and began that after the other's end."""
    asked, queue = PullRequest(model="new"), "scripted.pull"
    async with relay_on(redis_url) as relay:
        keys, its = Idempotency(relay.connection), key(asked)
        running, _ = await relay.queue.enqueue(asked, queue=queue)
        hold = await keys.hold(its, queue)
        found = []
        for _ in range(2):
            job, _ = await relay.queue.enqueue(
                asked, queue=queue, job_id=hold.job_id, bound_key=its.name
            )
            found.append(job.id)
            if ends and (claim := await relay.start_next(queue, "w1")):
                await relay.run(claim)
        now = await keys.find(its)

        assert found == [running.id] * 2
        assert now is not None
        assert now.job_id == running.id
        assert await relay.connection.command("ZCARD", redis_keys.backlog(queue)) == (not ends)


async def message(relay: Relay, policy: ConversationPolicy | None, name: str) -> str:
    """A job with the key of this name; with a policy, a message of a conversation."""
    request = chat(name, conversation=policy and "c", conversation_policy=policy)
    its = Once(uuid4().hex, key(request, value=name), Idempotency(relay.connection).times)
    job = await relay.queue.enqueue_once(request, its, queue=QUEUE, tenant=DEFAULT_TENANT)
    assert not isinstance(job, HeldKey)
    return job[0].id


@pytest.mark.parametrize("policy", [None, "queue", "interrupt", "reject", "parallel"])
async def test_a_job_whose_enqueue_is_repeated_after_a_lost_reply_is_new_and_waits(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, policy: ConversationPolicy | None
) -> None:
    """The key counted as another request's, so that the job was removed from its queue."""
    async with relay_on(redis_url) as relay:
        earlier = [await message(relay, policy and "parallel", f"{n}") for n in range(2)]
        if policy == "reject":
            await asyncio.gather(*(relay.queue.cancel(id, by="caller") for id in earlier))
        really = relay.connection.calls

        async def twice(calls: Sequence[Any]) -> Any:
            await really(calls)
            return await really(calls)

        monkeypatch.setattr(relay.connection, "calls", twice)
        job = await message(relay, policy, "new")
        monkeypatch.setattr(relay.connection, "calls", really)
        statuses = [(await relay.records.get(id)).status for id in (*earlier, job)]
        waiting = await relay.connection.command("ZRANGE", redis_keys.backlog(QUEUE), 0, -1)

    ended = policy in ("interrupt", "reject")
    assert statuses == [*(["cancelled" if ended else "queued"] * 2), "queued"]
    assert {id.decode() for id in waiting} == {job, *([] if ended else earlier)}


@pytest.mark.parametrize("is_started", [False, True], ids=["waits", "started"])
async def test_a_job_whose_enqueue_was_answered_too_late_ends_and_frees_its_key_if_it_never_began(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, *, is_started: bool
) -> None:
    """So that a request which is repeated after a 503 is one job that runs."""
    job_id = "a" * 32
    async with relay_on(redis_url) as relay:
        really = relay.connection.calls

        async def too_late(calls: Sequence[Any]) -> Any:
            monkeypatch.setattr(relay.connection, "calls", really)
            await really(calls)
            if is_started:
                await relay.start_next(QUEUE, "w1")
            raise RelayUnavailable("Redis does not answer")

        await relay.queue.positions.recent_rate(QUEUE)
        monkeypatch.setattr(relay.connection, "calls", too_late)
        with pytest.raises(RelayUnavailable):
            await once(relay, job_id)
        keys = Idempotency(relay.connection)
        await keys.release(key(), Hold(job_id, QUEUE, is_new=True))
        (record, held) = (await relay.records.get(job_id), await keys.find(key()))
        types = [frame.type for frame in await relay.frames(job_id)]

    assert record.status == "failed"
    assert types == ["queued", *(["started"] if is_started else []), "failed"]
    assert (held is not None) is is_started


async def test_a_flood_of_keys_is_renewed_at_once_and_leaves_with_its_jobs(redis_url: str) -> None:
    """Two hundred a pass were fewer than a busy fleet has jobs: keys outlived them by a week."""
    async with relay_on(redis_url) as relay:
        keys = Idempotency(relay.connection)
        names = [key(value=f"order-{number}") for number in range(500)]
        for each in names:
            await keys.hold(each, QUEUE)
            await relay.connection.command("HSET", each.name, "at", 0)
        due = [word for each in names for word in (0, each.name)]
        await relay.connection.command("ZADD", redis_keys.IDEMPOTENCY, *due)
        await relay.reconciler.reconcile()

        assert await relay.connection.command("EXISTS", redis_keys.IDEMPOTENCY) == 0
        assert await relay.connection.command("EXISTS", *(each.name for each in names)) == 0
