"""A batch's record and its driver's lease: without its token nothing changes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from support.relay import Relay, relay_on

from contract import redis_keys
from contract.batches import LineError, NewBatch, StoredFile
from contract.errors import BatchEnded, KeyReused, QueueFull, UnknownBatch, UnknownFile
from contract.events import Usage
from contract.tenants import DEFAULT_TENANT, Tenant
from relay.batches import BatchLease, BatchPart, BatchStore, parts_name
from relay.connection import DamagedKey
from relay.files import Files, stored_name

ANN, BOB = Tenant(name="ann"), Tenant(name="bob")
FILE = "file-" + "0" * 32
WISH = NewBatch(
    endpoint="/v1/embeddings",
    input_file_id=FILE,
    window_s=3600,
    completion_window="1h",
    output_ttl_s=7200,
    metadata={"a": "b"},
)


@asynccontextmanager
async def batches_on(url: str, **settings: float) -> AsyncGenerator[tuple[BatchStore, Relay]]:
    async with relay_on(url, **settings) as relay:
        yield BatchStore(relay.connection), relay


async def taken(batches: BatchStore, total: int = 3) -> BatchLease:
    lease = await batches.take(await batches.create(WISH, ANN, most=100))
    assert lease is not None
    assert await batches.start(lease, total)
    return lease


def part(name: str, *rows: int) -> BatchPart:
    return BatchPart(name, rows, len(rows), 0, Usage(prompt_tokens=2))


def a_file(file_id: str, tenant: str = "ann") -> StoredFile:
    return StoredFile(
        id=file_id, tenant=tenant, filename="f", purpose="batch", size_bytes=1, expires_at=0
    )


async def test_a_batch_has_the_requested_fields(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        made = await batches.create(WISH, ANN, most=100)
        found = await batches.get_for_tenant(made.id, ANN)

        assert found == made
        assert (found.status, found.metadata, found.tenant) == ("validating", {"a": "b"}, ANN)
        assert found.expires_at == pytest.approx(found.created_at + 3600)


async def test_another_tenants_batch_is_unknown(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        made = await batches.create(WISH, ANN, most=100)
        with pytest.raises(UnknownBatch):
            await batches.get_for_tenant(made.id, BOB)

        assert (await batches.page(BOB, limit=10)).batches == ()
        assert (await batches.get_for_tenant(made.id, DEFAULT_TENANT)).id == made.id


async def test_an_idempotency_key_creates_one_batch(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        one = await batches.create(WISH, ANN, most=1, key="k")
        again = await batches.create(WISH, ANN, most=1, key="k")
        other = await batches.create(WISH, BOB, most=1, key="k")
        with pytest.raises(KeyReused):
            await batches.create(WISH.model_copy(update={"window_s": 60}), ANN, most=1, key="k")

        assert one.id == again.id != other.id


async def test_the_live_batches_of_a_tenant_are_bounded(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        await batches.create(WISH, ANN, most=1)
        with pytest.raises(QueueFull, match="FLEET_TENANT_BATCHES"):
            await batches.create(WISH, ANN, most=1)

        assert await batches.create(WISH, BOB, most=1)


async def test_one_driver_has_a_batch_until_its_lease_ends(redis_url: str) -> None:
    async with batches_on(redis_url, lease_s=0.2) as (batches, _):
        made = await batches.create(WISH, ANN, most=100)
        first, second = await batches.take(made), await batches.take(made)
        assert first is not None
        third = None
        while third is None:
            third = await batches.take(made)

        assert second is None
        assert third.token != first.token
        assert await batches.renew(first, 0, 0) is None
        assert await batches.renew(third, 0, 0) is not None


async def test_a_released_batch_is_leased_at_once(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        lease = await taken(batches)
        await batches.issue(lease, 7)
        await batches.free(lease)
        (waiting,) = await batches.waiting(10)
        again = await batches.take(waiting)

        assert again is not None
        assert (again.issued, again.batch.counts.total) == (7, 3)
        assert again.batch.status == "in_progress"


async def test_a_former_driver_lists_nothing(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        lease = await taken(batches)
        assert await batches.commit(lease, part("0-a.output", 0))
        await batches.free(lease)
        again = await batches.take(lease.batch)
        assert again is not None

        assert not await batches.commit(lease, part("1-a.output", 1))
        assert not await batches.start(lease, 9)
        assert not await batches.finish(lease, "completed")
        assert await batches.finalize(lease, gives_up=True) is None
        assert await batches.parts(lease.batch.id) == ["0-a.output"]
        assert again.batch.counts.completed == 1


async def test_a_row_is_marked_once(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        lease = await taken(batches)
        answers = [
            await batches.commit(lease, part("0-a.output", 0, 2)),
            await batches.commit(lease, part("0-a.output", 0, 2)),  # its answer was lost
            await batches.commit(lease, part("1-a.output", 1, 2)),
        ]
        found = await batches.get_for_tenant(lease.batch.id, ANN)

        assert answers == [True, True, False]
        assert await batches.done_rows(lease.batch.id) == bytes([0b10100000])
        assert (found.counts.completed, found.usage.prompt_tokens) == (2, 2)


async def test_answers_are_counted_before_their_part_is_committed(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        lease = await taken(batches)
        await batches.renew(lease, 2, 1)
        counts = (await batches.get_for_tenant(lease.batch.id, ANN)).counts

        assert (counts.completed, counts.failed) == (2, 1)


async def test_a_batch_ends_with_its_files_when_every_row_is_marked(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, relay):
        lease = await taken(batches)
        output = a_file("file-" + "1" * 32)
        early = await batches.finish(lease, "completed", files=(output, None))
        await batches.commit(lease, part("0-a.output", 0, 1, 2))
        status = await batches.finalize(lease, gives_up=False)
        assert status == "completed"
        late = await batches.finish(lease, status, files=(output, None))
        found = await batches.get_for_tenant(lease.batch.id, ANN)
        file = await Files(relay.connection).get_for_tenant(output.id, ANN)

        assert (early, late) == (False, True)
        assert (await Files(relay.connection).stored_bytes()).by_tenant == {"ann": 64 * 1024}
        assert (found.status, found.output_file_id) == ("completed", output.id)
        assert found.error_file_id is None
        assert found.finalizing_at
        assert found.completed_at
        assert file.expires_at == pytest.approx(file.created_at + WISH.output_ttl_s)
        assert await Files(relay.connection).due() == [parts_name(lease.batch.id)]
        assert await batches.waiting(10) == []


async def test_a_repeated_cancel_has_the_same_response(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        lease = await taken(batches)
        first = await batches.cancel(lease.batch)
        again = await batches.cancel(lease.batch)
        pulse = await batches.renew(lease, 0, 0)

        assert first == again
        assert pulse is not None
        assert pulse.status == "cancelling"
        assert await batches.finalize(lease, gives_up=True) == "cancelled"


async def test_the_next_driver_knows_that_the_window_had_ended(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        lease = await taken(batches)
        assert await batches.finalize(lease, gives_up=True) == "expired"
        await batches.free(lease)
        again = await batches.take(lease.batch)
        assert again is not None

        assert again.gives_up
        assert await batches.finalize(again, gives_up=False) == "expired"
        with pytest.raises(BatchEnded):
            await batches.cancel(lease.batch)


async def test_an_invalid_input_file_ends_the_batch(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        lease = await batches.take(await batches.create(WISH, ANN, most=1))
        assert lease is not None
        wrong = LineError(code="c", message="m", line=2)
        assert await batches.finish(lease, "failed", errors=[wrong])
        found = await batches.get_for_tenant(lease.batch.id, ANN)

        assert (found.status, found.errors) == ("failed", (wrong,))
        assert await batches.create(WISH, ANN, most=1)


async def test_a_renewal_returns_how_many_batches_of_the_tenant_are_driven(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        one, _two = await taken(batches), await taken(batches)
        await batches.create(WISH, ANN, most=100)
        pulse = await batches.renew(one, 0, 0)

        assert pulse is not None
        assert pulse.sharing == 2


async def test_the_input_of_a_batch_is_not_deleted(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        files, batches = Files(relay.connection), BatchStore(relay.connection)
        for file_id in (FILE, "file-" + "1" * 32):
            file = await files.create(a_file(file_id), ttl_s=100)
            if file_id == FILE:
                await batches.create(WISH, ANN, most=1)
            await files.delete(file)
        with pytest.raises(UnknownFile):
            await files.get_for_tenant(FILE, ANN)

        assert await files.due() == [stored_name("file-" + "1" * 32)]


async def test_an_upload_that_never_ended_is_due(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        files = Files(relay.connection)
        await files.keep("files/lost", 0)
        await files.keep("files/coming")
        due, again = await files.due(), await files.due()
        await files.forget("files/lost")

        assert due == ["files/lost"]
        assert again == []


async def test_another_tenants_file_is_unknown(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        files = Files(relay.connection)
        await files.create(a_file(FILE), ttl_s=100)
        with pytest.raises(UnknownFile):
            await files.get_for_tenant(FILE, BOB)

        assert (await files.page(BOB, limit=5)).files == ()
        assert [file.id for file in (await files.page(ANN, limit=5)).files] == [FILE]


async def test_a_batch_for_later_is_validated_now_and_driven_at_its_time(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, relay):
        at = relay.connection.now() + 0.4
        made = await batches.create(WISH.model_copy(update={"not_before": at}), ANN, most=100)
        lease = await batches.take(made)
        assert lease is not None
        assert await batches.start(lease, 3) is False
        await batches.free(lease)
        waits = await batches.get_for_tenant(made.id, ANN)

        assert made.expires_at == pytest.approx(at + 3600, abs=0.01)
        assert (waits.status, waits.counts.total) == ("validating", 3)
        assert await batches.waiting(10) == []
        assert await batches.take(made) is None

        while not await batches.waiting(10):
            await asyncio.sleep(0.05)
        lease = await batches.take(made)
        assert lease is not None
        assert await batches.start(lease, 3)
        assert relay.connection.now() >= at


async def test_a_batch_that_waits_for_its_time_is_no_driven_one_and_ends_when_it_is_cancelled(
    redis_url: str,
) -> None:
    async with batches_on(redis_url) as (batches, relay):
        at = relay.connection.now() + 3600
        later = await batches.create(WISH.model_copy(update={"not_before": at}), ANN, most=100)
        lease = await batches.take(later)
        assert lease is not None
        await batches.start(lease, 3)
        await batches.free(lease)
        pulse = await batches.renew(await taken(batches), 0, 0)
        await batches.cancel(later)
        waiting = await batches.waiting(10)

        assert pulse is not None
        assert pulse.sharing == 1
        assert [each.id for each in waiting] == [later.id]


async def test_a_batch_that_is_deleted_while_it_is_cancelled_is_unknown(redis_url: str) -> None:
    async with batches_on(redis_url) as (batches, _):
        batch = await batches.create(WISH, ANN, most=100)
        await batches.delete(batch)
        with pytest.raises(UnknownBatch):
            await batches.cancel(batch)


async def test_a_damaged_record_that_an_idempotency_key_leads_to_is_no_defect(
    redis_url: str,
) -> None:
    async with batches_on(redis_url) as (batches, relay):
        batch = await batches.create(WISH, ANN, most=100, key="k")
        await relay.connection.command("HSET", redis_keys.batch(batch.id), "created_at", "nan")
        with pytest.raises(DamagedKey):
            await batches.create(WISH, ANN, most=100, key="k")


async def test_of_a_tenants_ended_batches_the_newest_stay(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each had a record of some kilobytes for a month, however many were made and cancelled.
    monkeypatch.setattr("relay.batches._MOST_ENDED", 3)
    async with batches_on(redis_url) as (batches, relay):
        lives = await batches.create(WISH, ANN, most=100)
        others = await batches.create(WISH, BOB, most=100)
        made = [lives.id]
        for _ in range(6):
            batch = await batches.create(WISH, ANN, most=100)
            lease = await batches.take(batch)
            assert lease is not None
            await batches.start(lease, 0)
            assert await batches.finish(lease, "cancelled")
            made.append(batch.id)
        page = await batches.page(ANN, limit=50)
        records = [
            await relay.connection.command("EXISTS", redis_keys.batch(each)) for each in made
        ]

        # The last one was counted while it lived.
        assert [each.id for each in page.batches] == [*made[:2:-1], lives.id]
        assert records == [1, 0, 0, 1, 1, 1, 1]
        assert await batches.get_for_tenant(others.id, BOB) == others
