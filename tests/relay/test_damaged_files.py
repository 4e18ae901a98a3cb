"""Files and batches of which a value is damaged are passed over; the others are listed.

Subjects: relay/files.py, relay/batches.py, relay/connection.py.
"""

import pytest
from support.relay import relay_on

from contract import redis_keys
from contract.batches import StoredFile
from contract.tenants import Tenant
from relay.batches import batch_of
from relay.connection import UNREADABLE
from relay.files import Files

ODD = ["nan", "inf", "", "x", "9" * 400]


@pytest.mark.parametrize("value", ODD)
async def test_a_file_with_a_time_that_is_none_is_passed_over(redis_url: str, value: str) -> None:
    async with relay_on(redis_url) as relay:
        files, made = Files(relay.connection), []
        for number in range(2):
            file = StoredFile(
                id=f"file-{number}", tenant="ann", filename="a", purpose="batch", size_bytes=1,
                expires_at=0,
            )  # fmt: skip
            made.append(await files.create(file, ttl_s=60))
        await relay.connection.command("HSET", redis_keys.file("file-0"), "created_at", value)
        page = await files.page(Tenant(name="ann"), limit=9)

    assert list(page.files) == made[1:]


@pytest.mark.parametrize("value", ODD)
async def test_a_number_of_stored_bytes_that_is_none_is_passed_over(
    redis_url: str, value: str
) -> None:
    async with relay_on(redis_url) as relay:
        await relay.connection.command("HSET", redis_keys.FILE_BYTES, "=ann", value, "=bob", 5)
        stored = await Files(relay.connection).stored_bytes()

    assert stored.by_tenant == {"bob": 5}


@pytest.mark.parametrize("value", [b"[" * 5000, b'{"a":"\\ud800"}', b"\xff", b"7"])
def test_a_batch_with_damaged_metadata_is_unreadable_and_no_defect(value: bytes) -> None:
    with pytest.raises(UNREADABLE):
        batch_of({b"id": b"batch_1", b"metadata": value})
