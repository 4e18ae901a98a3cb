"""The beginning of an id stands for the id, among what the caller may see and no further."""

import pytest
from support.relay import Relay, relay_on

from contract import redis_keys
from contract.errors import AmbiguousId, JobNotFound
from contract.events import Delta
from contract.tenants import Tenant
from relay.records import Records
from relay.scripts import id_prefixes

MINE, ADMIN = Tenant(name="mine"), Tenant(name="boss", admin=True)
A, B, C = "abcd0" + "0" * 27, "abcd1" + "0" * 27, "ffff0" + "0" * 27


async def put(relay: Relay, *ids: str, tenant: str = "mine", expired: bool = False) -> None:
    """Jobs in the lists, as the enqueue leaves them."""
    job = await relay.enqueue()
    fields = await relay.connection.command("HGETALL", redis_keys.record(job))
    for number, id in enumerate(ids):
        for index in (redis_keys.RECENT, redis_keys.recent(tenant)):
            await relay.connection.command("ZADD", index, 1000 + number, id)
        if not expired:
            own = [*(it for pair in fields.items() for it in pair), "id", id, "tenant", tenant]
            await relay.connection.command("HSET", redis_keys.record(id), *own)


async def test_a_beginning_that_is_one_jobs_stands_for_it(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, A, B, C)
        records = Records(relay.connection)

        assert (await records.get_for_tenant("ffff", MINE)).id == C
        assert (await records.get_for_tenant("abcd1", MINE)).id == B
        assert (await records.get_for_tenant(A, MINE)).id == A
        assert (await records.get_for_tenant("abcd1", ADMIN)).id == B


async def test_a_prefix_of_several_ids_is_an_error_with_their_number(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, A, B, C)

        with pytest.raises(AmbiguousId, match=r"^2 ids begin with abcd"):
            await Records(relay.connection).get_for_tenant("abcd", MINE)


async def test_others_jobs_are_neither_found_nor_counted(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, A)
        await put(relay, B, C, tenant="other")
        records = Records(relay.connection)

        assert (await records.get_for_tenant("abcd", MINE)).id == A
        with pytest.raises(JobNotFound):
            await records.get_for_tenant("ffff", MINE)
        with pytest.raises(AmbiguousId):
            await records.get_for_tenant("abcd", ADMIN)


async def test_a_celery_task_whose_id_looks_like_a_prefix_is_found(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, redis_keys.job_id("deadbeef"))

        found = await Records(relay.connection).get_for_tenant("deadbeef", MINE)

    assert found.id == redis_keys.job_id("deadbeef")


async def test_expired_jobs_do_not_make_a_prefix_ambiguous(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, A)
        await put(relay, B, C, expired=True)
        records = Records(relay.connection)

        assert (await records.get_for_tenant("abcd", MINE)).id == A
        with pytest.raises(JobNotFound):
            await records.get_for_tenant("ffff", MINE)


async def test_the_search_is_bounded_and_covers_every_page(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_prefixes, "_SCAN_PAGE", 10)
    monkeypatch.setattr(id_prefixes, "MOST_SCANNED", 50)
    async with relay_on(redis_url) as relay:
        for number in range(60):
            await relay.connection.command("ZADD", "index", number, f"{number:04x}")
        found = [
            await id_prefixes.ids_with_prefix(relay.connection, "index", f"{number:04x}")
            for number in range(60)
        ]

    assert found == [[] for _ in range(10)] + [[f"{number:04x}"] for number in range(10, 60)]


async def test_a_beginning_of_very_many_stops_early(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, *(f"abcd{number:028x}" for number in range(30)))

        with pytest.raises(AmbiguousId, match=r"^30 or more"):
            await Records(relay.connection).get_for_tenant("abcd", MINE)


async def _read_bytes(relay: Relay) -> int:
    """What Redis has sent so far."""
    stats = await relay.connection.command("INFO", "stats")
    return int(stats["total_net_output_bytes"])


async def test_lists_and_records_are_read_without_requests_and_answers(redis_url: str) -> None:
    async with relay_on(redis_url, compact_after_s=0) as relay:
        for number in range(10):
            job = await relay.enqueue("x" * 2**20, metadata={"note": f"{number}" * 500})
            await relay.run(await relay.claim(), Delta(content="y" * 2**20))
        before = await _read_bytes(relay)
        page = await relay.records.page(visible_to=ADMIN)
        listed = await _read_bytes(relay)
        record = await relay.records.get(job)
        read = await _read_bytes(relay)

    assert len(page.jobs) == 10
    assert "note" not in page.model_dump_json()
    assert record.metadata == {"note": "9" * 500}
    assert listed - before < 50_000
    assert read - listed < 10_000
