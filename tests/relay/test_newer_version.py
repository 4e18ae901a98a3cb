"""Two versions in one Redis: the older one keeps what the newer one wrote, and does not fail.

Subjects: relay/queue.py, relay/claims.py, relay/records.py, relay/roster.py.
"""

import json

import pytest
from support.relay import QUEUE, Relay, relay_on

from contract import redis_keys
from contract.errors import NewerVersion
from contract.events import Unknown


async def newer(relay: Relay, job: str) -> None:
    """Write a job as a newer version would have: fields and values that this one does not know."""
    request = json.loads(await relay.connection.command("HGET", redis_keys.record(job), "request"))
    await relay.connection.command(
        "HSET", redis_keys.record(job), "request", json.dumps({**request, "mood": "good"}),
        "priority", "urgent", "on_disconnect", "ask", "colour", "7",
    )  # fmt: skip


async def test_a_job_with_metadata_that_an_older_version_took_still_runs(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job, nested = await relay.enqueue(), {"a": {"b": [1]}}
        record = redis_keys.record(job)
        request = json.loads(await relay.connection.command("HGET", record, "request"))
        await relay.connection.command(
            "HSET", record, "request", json.dumps({**request, "metadata": nested}),
            "metadata", json.dumps(nested),
        )  # fmt: skip

        assert (await relay.records.request(job)).metadata == {}
        assert (await relay.records.get(job)).metadata == nested


async def test_an_expired_lease_on_a_newer_job_is_taken_back(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        job = await relay.enqueue()
        await relay.claim()
        await newer(relay, job)
        while not await relay.leases.reap():
            pass
        state = await relay.records.state(job)

        assert state is not None
        assert (state.status, state.attempt) == ("queued", 2)
        assert await relay.connection.command("ZSCORE", redis_keys.backlog(QUEUE), job)
        kept = await relay.connection.command("HGET", redis_keys.record(job), "request")
        assert json.loads(kept)["mood"] == "good"


async def test_a_newer_job_that_its_queue_has_lost_is_given_back_with_its_facts(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue("a long story " * 100)
        known = json.loads(await relay.connection.command("HGET", redis_keys.facts(QUEUE), job))
        await newer(relay, job)
        for key in (redis_keys.backlog(QUEUE), redis_keys.urgent(QUEUE), redis_keys.facts(QUEUE)):
            await relay.connection.command("DEL", key)
        assert await relay.leases.give_back(QUEUE, job, 1, 1)
        again = json.loads(await relay.connection.command("HGET", redis_keys.facts(QUEUE), job))

        assert (again["tokens"], again["model"]) == (known["tokens"], known["model"])


async def test_a_job_that_an_older_version_enqueued_is_given_back(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.connection.command("HDEL", redis_keys.record(job), "facts")
        await relay.connection.command("DEL", redis_keys.backlog(QUEUE), redis_keys.facts(QUEUE))

        assert await relay.leases.give_back(QUEUE, job, 1, 1)


async def test_a_record_that_cannot_be_read_names_the_reason_and_spares_the_list(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        other = await relay.enqueue()
        job = await relay.enqueue()
        await relay.connection.command("HSET", redis_keys.record(job), "kind", "moderate")

        with pytest.raises(NewerVersion, match="kind"):
            await relay.records.get(job)
        assert [record.id for record in (await relay.records.page()).jobs] == [other]


async def test_a_deadline_ends_a_job_that_cannot_be_read(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue(deadline_s=0.01)
        await relay.connection.command("HSET", redis_keys.record(job), "kind", "moderate")
        while (state := await relay.records.state(job)) and state.status == "queued":
            await relay.reconciler.reconcile()

        assert state is not None
        assert state.status == "failed"


async def test_a_claim_returns_a_job_that_it_cannot_read_with_the_reason(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.connection.command("HSET", redis_keys.record(job), "kind", "moderate")

        assert await relay.start_next(QUEUE, "w1") is None
        assert await relay.connection.command("ZSCORE", redis_keys.delayed(QUEUE), job)
        last = [frame async for frames in relay.log.read(job) for frame in frames][-1]
        assert (last.type, b"newer version" in last.body) == ("queued", True)


async def test_events_of_a_newer_version_reach_followers_as_they_are(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim()
        wire = b'1-2 citation {"id":"1-2","at":1.0,"type":"citation","url":"u"}'
        await relay.connection.command("XADD", redis_keys.log(job), "1-2", "f", wire)
        last = b'1-3 done {"id":"1-3","at":1.0,"type":"done","finish_reason":"tired"}'
        await relay.connection.command("XADD", redis_keys.log(job), "1-3", "f", last)
        heard = await relay.frames(job)

        assert [frame.type for frame in heard][-2:] == ["citation", "done"]
        assert heard[-2].body in wire
        assert isinstance(heard[-2].event, Unknown)
        assert (await relay.result(claim.record.id)).status == "done"
