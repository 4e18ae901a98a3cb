"""Jobs that wait for other jobs: freed or failed once, whoever ends the others and whoever dies.

Subjects: relay/parents.py, relay/lua/jobs/adopt.lua, relay/lua/jobs/unblock.lua.
"""

from typing import Any

import pytest
from support.queues import left_in_queues, nothing_waits
from support.relay import QUEUE, Relay, chat, relay_on, words

from contract import redis_keys
from contract.errors import JobNotFound
from contract.events import Failed
from contract.jobs import JobRecord
from contract.tenants import Tenant
from relay.parents import Parents


async def child_of(relay: Relay, *parents: str, **fields: Any) -> JobRecord:
    given = {"after": parents} if "after_any" not in fields else {}
    record, _ = await relay.queue.enqueue(chat(**given, **fields), queue=QUEUE)
    return record


async def run_next(relay: Relay) -> str:
    claim = await relay.claim()
    await relay.run(claim, *words(1))
    return claim.record.id


async def status(relay: Relay, job: str) -> str:
    return (await relay.records.get(job)).status


async def ending(relay: Relay, job: str) -> Failed:
    event = (await relay.frames(job))[-1].event
    assert isinstance(event, Failed)
    return event


async def clean(relay: Relay) -> None:
    await relay.reconciler.reconcile()
    await nothing_waits(relay)
    for key in (redis_keys.BLOCKED, redis_keys.PARENTS):
        assert await relay.connection.command("EXISTS", key) == 0
    assert await relay.connection.command("KEYS", "fleet:j:*:children") == []


async def test_a_child_starts_once_all_its_parents_are_done(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first, second = await relay.enqueue(), await relay.enqueue()
        child = await child_of(relay, first, second, first)
        place = await relay.queue.positions.place(child)
        assert place.reason == "scheduled: it waits for 2 jobs to end"
        await run_next(relay)
        await relay.reconciler.reconcile()
        assert (await relay.records.get(child.id)).blocked
        await run_next(relay)
        assert await relay.start_next(QUEUE, "w1") is None
        await relay.reconciler.reconcile()

        freed = await relay.records.get(child.id)
        assert not freed.blocked
        assert freed.ready_at > child.created_at
        assert await run_next(relay) == child.id
        await clean(relay)


@pytest.mark.parametrize("how", ["failed", "cancelled", "dead"])
async def test_a_child_fails_with_its_parent_and_says_so(redis_url: str, how: str) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue(max_attempts=1)
        child = await child_of(relay, parent)
        grandchild = await child_of(relay, child.id)
        if how == "cancelled":
            await relay.queue.cancel(parent, by="caller")
        elif how == "failed":
            claim = await relay.claim()
            log = relay.attempt_log(claim)
            log.append(Failed(code="server_fault", message="it broke", retryable=False))
            await log.flush()
            await relay.leases.release(QUEUE, parent, None)
        else:
            await relay.claim()
            await relay.leases.hand_over(QUEUE, parent, 1, reason="it died", counts=True)
        await relay.reconciler.reconcile()

        failed = await ending(relay, child.id)
        assert (failed.code, failed.retryable, failed.dead) == ("parent_failed", False, False)
        assert parent in failed.message
        assert ("was cancelled" if how == "cancelled" else "failed") in failed.message
        assert (await ending(relay, grandchild.id)).code == "parent_failed"
        await clean(relay)


async def test_a_child_of_after_any_starts_however_its_parents_ended(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()
        child = await child_of(relay, after_any=(parent,))
        await relay.queue.cancel(parent, by="caller")
        await relay.reconciler.reconcile()

        assert await run_next(relay) == child.id
        await clean(relay)


async def test_parents_that_have_ended_decide_at_the_enqueue(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        done = await relay.enqueue()
        await run_next(relay)
        cancelled = await relay.enqueue()
        await relay.queue.cancel(cancelled, by="caller")

        ready = await child_of(relay, done)
        hopeless = await child_of(relay, cancelled)
        anyway = await child_of(relay, after_any=(cancelled,))
        assert not ready.blocked
        assert hopeless.status == "failed"
        assert (await ending(relay, hopeless.id)).code == "parent_failed"
        assert [await run_next(relay), await run_next(relay)] == [ready.id, anyway.id]
        await clean(relay)


async def test_unknown_and_foreign_parents_are_told_alike_and_leave_nothing(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        foreign = await relay.enqueue()
        stranger = Tenant(name="stranger")
        told = []
        for parent in (foreign, "0" * 32):
            with pytest.raises(JobNotFound) as caught:
                await relay.queue.enqueue(chat(after=(parent,)), queue=QUEUE, tenant=stranger)
            told.append(caught.value.message.replace(parent, "<id>"))

        assert told[0] == told[1]
        assert len(await relay.connection.command("KEYS", "fleet:j:*:record")) == 1


async def test_the_deadline_of_a_child_counts_from_the_end_of_its_parents(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()
        child = await child_of(relay, parent, deadline_s=50)
        embeds = await child_of(relay, parent, priority="batch")
        now = relay.connection.now()
        assert child.deadline_at == pytest.approx(now + 30 * 86400, abs=5)
        await run_next(relay)
        await relay.reconciler.reconcile()

        freed = await relay.records.get(child.id)
        assert freed.deadline_at == pytest.approx(relay.connection.now() + 50, abs=5)
        assert (await relay.records.get(embeds.id)).deadline_at is None
        deadlines = await relay.connection.command("ZRANGE", redis_keys.DEADLINES, 0, -1)
        assert deadlines == [child.id.encode()]


async def test_a_child_may_wait_for_a_time_as_well(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()
        child = await child_of(relay, parent, not_before=relay.connection.now() + 500)
        await run_next(relay)
        await relay.reconciler.reconcile()

        place = await relay.queue.positions.place(await relay.records.get(child.id))
        assert place.reason.startswith("scheduled for 20")
        due = await relay.connection.command("ZSCORE", redis_keys.delayed(QUEUE), child.id)
        assert float(due) == pytest.approx(relay.connection.now() + 500, abs=5)


async def test_a_waiting_child_is_cancelled_and_its_parent_ends_as_ever(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()
        child = await child_of(relay, parent)
        await relay.queue.cancel(child.id, by="caller")
        assert await run_next(relay) == parent
        await relay.reconciler.reconcile()

        assert await status(relay, child.id) == "cancelled"
        await clean(relay)


async def test_a_shim_that_dies_before_it_has_registered_a_child_leaves_it_to_the_maintainer(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()

        async def dies(_: Parents, record: JobRecord) -> bool:
            return record.blocked

        with monkeypatch.context() as patched:
            patched.setattr(Parents, "attach", dies)
            child = await child_of(relay, parent)
        await run_next(relay)
        assert await relay.connection.command("ZCARD", redis_keys.PARENTS) == 0
        await relay.connection.command("ZADD", redis_keys.BLOCKED, 0, child.id)  # its time comes
        await relay.reconciler.reconcile()

        assert await run_next(relay) == child.id
        await clean(relay)


async def test_a_maintainer_that_dies_between_two_steps_leaves_the_rest_to_the_next(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()
        child = await child_of(relay, parent)
        await run_next(relay)
        # It had freed the record, and not the queue's entry.
        record = redis_keys.record(child.id)
        await relay.connection.command("HDEL", record, "blocked")
        await relay.reconciler.reconcile()

        assert await run_next(relay) == child.id
        await clean(relay)


async def test_a_child_whose_queue_was_lost_waits_for_its_parent_again(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()
        child = await child_of(relay, parent)
        for key in (redis_keys.facts(QUEUE), redis_keys.delayed(QUEUE)):
            await relay.connection.command("HDEL" if "facts" in key else "ZREM", key, child.id)
        await relay.leases.give_back(QUEUE, child.id, 1, 1)
        assert await run_next(relay) == parent
        await relay.reconciler.reconcile()

        assert await run_next(relay) == child.id
        await clean(relay)


async def test_a_parent_with_many_children_frees_all_of_them_in_one_pass(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()
        children = {(await child_of(relay, parent)).id for _ in range(250)}
        await run_next(relay)
        await relay.reconciler.reconcile()

        assert {(await relay.claim()).record.id for _ in range(250)} == children
        assert await relay.connection.command("EXISTS", redis_keys.BLOCKED) == 0


async def test_a_parent_that_is_gone_fails_those_that_needed_it_done(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        parent = await relay.enqueue()
        needs, waits = await child_of(relay, parent), await child_of(relay, after_any=(parent,))
        claim = await relay.claim()
        await relay.run(claim)
        await relay.connection.command("DEL", redis_keys.record(parent))
        await relay.reconciler.reconcile()

        assert "is gone" in (await ending(relay, needs.id)).message
        assert await run_next(relay) == waits.id
        assert await left_in_queues(relay) == []


async def test_a_parent_that_was_found_done_may_go(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first, second = await relay.enqueue(), await relay.enqueue()
        child = await child_of(relay, first, second)
        assert await run_next(relay) == first
        await relay.reconciler.reconcile()
        await relay.connection.command("DEL", redis_keys.record(first))
        late = await child_of(relay, second)
        assert await run_next(relay) == second
        await relay.reconciler.reconcile()

        assert {await run_next(relay), await run_next(relay)} == {child.id, late.id}
        await clean(relay)
