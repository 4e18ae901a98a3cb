"""Dead letters: list, show, retry and purge."""

import asyncio
from typing import Any

import pytest
from support.crowd import crowd
from support.dying import died
from support.relay import QUEUE, relay_on

from contract import redis_keys
from contract.errors import NotDead, QueueFull
from contract.tenants import DEFAULT_TENANT, Tenant
from relay.dead_letters import DeadLetterFilter, DeadLetters
from relay.followers import Followers

ALL = DeadLetterFilter(DEFAULT_TENANT)


async def ids(dead: DeadLetters, wanted: DeadLetterFilter = ALL, **arguments: Any) -> list[str]:
    page = await dead.page(wanted, **{"limit": 50, **arguments})
    return [letter.id for letter in page.letters]


async def test_a_job_that_is_out_of_attempts_is_a_dead_letter_with_its_error(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        record = await died(relay)
        (letter,) = (await DeadLetters(relay.connection).page(ALL, limit=9)).letters
        ttl_s = await relay.connection.command("TTL", redis_keys.record(record.id))
        log_ttl_s = await relay.connection.command("TTL", redis_keys.log(record.id))

        assert (letter.id, letter.status, letter.dead_at is None) == (record.id, "failed", False)
        assert letter.error is not None
        assert (letter.error.code, letter.error.dead) == ("server_fault", True)
        assert 6.9 * 86400 < ttl_s <= 7 * 86400
        assert 6.9 * 86400 < log_ttl_s <= 7 * 86400


async def test_dead_letters_are_paged_the_last_to_die_first(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead = DeadLetters(relay.connection)
        order = [(await died(relay)).id for _ in range(5)][::-1]
        first = await dead.page(ALL, limit=3)
        rest = await dead.page(ALL, limit=3, before=first.next)

        assert [letter.id for letter in (*first.letters, *rest.letters)] == order
        assert rest.next is None


async def test_dead_letters_are_filtered_by_queue_kind_and_tenant(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead = DeadLetters(relay.connection)
        ours = (await died(relay)).id
        theirs = (await died(relay, queue="other.chat", tenant=Tenant(name="a"))).id

        assert await ids(dead, ALL._replace(queue="other.chat")) == [theirs]
        assert await ids(dead, ALL._replace(tenant="default")) == [ours]
        assert await ids(dead, ALL._replace(kind="embed")) == []
        assert await ids(dead, DeadLetterFilter(Tenant(name="a"))) == [theirs]


@pytest.mark.parametrize(
    "wanted", [DeadLetterFilter(Tenant(name="ann")), ALL._replace(tenant="ann")]
)
async def test_a_tenants_letters_are_found_behind_thousands_of_another(
    redis_url: str, wanted: DeadLetterFilter
) -> None:
    async with relay_on(redis_url) as relay:
        dead = DeadLetters(relay.connection)
        hers = [(await died(relay, tenant=Tenant(name="ann"))).id for _ in range(3)][::-1]
        await crowd(relay, redis_keys.DEAD, relay.connection.now() + 1)
        groups = await dead.groups(wanted)
        first = await dead.page(wanted, limit=2)
        rest = await dead.page(wanted, limit=2, before=first.next)
        purged = await dead.purge_all(wanted)

        assert [letter.id for letter in (*first.letters, *rest.letters)] == hers
        assert rest.next is None
        assert (groups.counted, groups.complete) == (3, True)
        assert (purged.purged, purged.next) == (3, None)
        assert await ids(dead, DeadLetterFilter(Tenant(name="b"), tenant="a")) == []


async def test_a_dead_letter_shows_its_request(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        view = await DeadLetters(relay.connection).show(await died(relay, "why?"))

        assert view.request["messages"][0]["content"] == "why?"
        assert view.error is not None


async def test_a_retry_is_a_new_job_and_a_second_retry_returns_it(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead, record = DeadLetters(relay.connection), await died(relay)
        first = await dead.retry(record, DEFAULT_TENANT)
        again = await dead.retry(await relay.records.get(record.id), DEFAULT_TENANT)
        await relay.run(await relay.claim())
        late = await dead.retry(await relay.records.get(record.id), DEFAULT_TENANT)

        assert first.record.id == again.record.id == late.record.id != record.id
        assert [first.is_new, again.is_new, late.is_new] == [True, False, False]
        assert (first.record.retry_of, late.record.status) == (record.id, "done")
        assert (await relay.records.get(record.id)).retried_as == first.record.id
        assert await ids(dead) == []


async def test_retries_that_race_are_one_job(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead, record = DeadLetters(relay.connection), await died(relay)
        retried = await asyncio.gather(*(dead.retry(record, DEFAULT_TENANT) for _ in range(10)))
        claims = [await relay.start_next(QUEUE, "w") for _ in range(2)]

        assert len({each.record.id for each in retried}) == 1
        assert [claim.record.id for claim in claims if claim] == [retried[0].record.id]


async def test_a_retry_that_is_refused_can_be_repeated(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit=1) as relay:
        dead, record = DeadLetters(relay.connection), await died(relay)
        waiting = await relay.enqueue()
        with pytest.raises(QueueFull):
            await dead.retry(record, DEFAULT_TENANT)
        listed = await ids(dead)
        await relay.queue.cancel(waiting, by="caller")
        retried = await dead.retry(await relay.records.get(record.id), DEFAULT_TENANT)

        assert listed == [record.id]
        assert retried.is_new


async def test_the_next_retry_completes_one_whose_shim_died(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead, record = DeadLetters(relay.connection), await died(relay)
        chosen = "0" * 32
        await relay.connection.command("HSET", redis_keys.record(record.id), "retried_as", chosen)
        retried = await dead.retry(await relay.records.get(record.id), DEFAULT_TENANT)

        assert retried.record.id == chosen == (await relay.claim()).record.id
        assert await ids(dead) == []


async def test_only_a_dead_letter_can_be_retried(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead, job = DeadLetters(relay.connection), await relay.enqueue()
        waiting = await relay.records.get(job)
        cancelled = await relay.queue.cancel(job, by="caller")
        for record in (waiting, cancelled):
            with pytest.raises(NotDead, match=job):
                await dead.retry(record, DEFAULT_TENANT)

        assert await relay.start_next(QUEUE, "w") is None


async def test_a_retry_whose_job_has_expired_is_an_error(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead, record = DeadLetters(relay.connection), await died(relay)
        retried = await dead.retry(record, DEFAULT_TENANT)
        await relay.queue.cancel(retried.record.id, by="caller")
        for key in (redis_keys.record, redis_keys.log):
            await relay.connection.command("DEL", key(retried.record.id))
        with pytest.raises(NotDead, match="expired"):
            await dead.retry(await relay.records.get(record.id), DEFAULT_TENANT)

        assert await relay.start_next(QUEUE, "w") is None


async def test_a_purged_letter_leaves_nothing(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead, record = DeadLetters(relay.connection), await died(relay)
        purged = await dead.purge(record)
        left = await relay.connection.command("KEYS", f"*{record.id}*")

        assert purged.purged == 1
        assert left == []
        assert await ids(dead) == []
        assert (await relay.records.page()).jobs == ()


async def test_a_purge_deletes_only_what_matches(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        dead = DeadLetters(relay.connection)
        kept = (await died(relay, queue="other.chat")).id
        for _ in range(3):
            await died(relay)
        purged = await dead.purge_all(ALL._replace(queue=QUEUE))

        assert (purged.purged, purged.next) == (3, None)
        assert await ids(dead) == [kept]


async def test_a_purge_is_bounded_and_returns_a_cursor(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.dead_letters._PURGED_AT_ONCE", 2)
    async with relay_on(redis_url) as relay:
        dead = DeadLetters(relay.connection)
        for _ in range(5):
            await died(relay)
        purged = [await dead.purge_all(ALL)]
        while purged[-1].next:
            purged.append(await dead.purge_all(ALL, before=purged[-1].next))

        assert [each.purged for each in purged if each.purged] == [2, 2, 1]
        assert await ids(dead) == []


async def test_cancel_of_a_dead_letter_answers_its_last_record(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        record = await died(relay)

        assert await relay.queue.cancel(record.id, by="caller") == record
        assert await ids(DeadLetters(relay.connection)) == [record.id]


async def test_the_reconciler_removes_letters_whose_record_has_expired(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        gone, there = await died(relay), await died(relay)
        await relay.connection.command("DEL", redis_keys.record(gone.id))
        await relay.reconciler.reconcile()

        assert await relay.connection.command("ZRANGE", redis_keys.DEAD, 0, -1) == [
            there.id.encode()
        ]


async def test_a_retried_job_of_a_client_that_has_gone_runs_without_a_follower(
    redis_url: str,
) -> None:
    # Jobs of drop-in clients live for their followers; a retry does not come from that client.
    async with relay_on(redis_url, lease_s=0.3, renew_s=0.1) as relay:
        audience = Followers(relay.connection)
        record = await died(relay, on_disconnect="cancel")
        retried = await DeadLetters(relay.connection).retry(record, DEFAULT_TENANT)
        await asyncio.sleep(0.6)

        assert await audience.cancel_abandoned() == 0
        assert (await relay.records.get(retried.record.id)).status == "queued"
