"""Files of a tenant, and all together, have a bound in bytes; what is deleted makes room at once.

Subjects: api_shim/batch/file_routes.py, api_shim/disk_room.py, relay/files.py.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from support.keys import keyed
from support.redis_server import RedisServer
from support.shim import serving
from support.small_disk import RedisOnASmallDisk, needs_mount

from api_shim.disk_room import Disk, RedisDisk, demand_room_for_file
from contract.errors import RelayFull, StorageUnavailable
from relay.connection import Connection
from relay.files import FileBounds, Files
from relay.settings import RelaySettings

KIB, MIB = 2**10, 2**20
BOUNDS = FileBounds(tenant_bytes=100, all_bytes=150)


async def test_bytes_are_counted_once_and_until_they_are_deleted(redis_url: str) -> None:
    async with Connection.open(RelaySettings(redis_url=SecretStr(redis_url))) as connection:
        files = Files(connection)
        for _ in range(2):
            await files.reserve("files/1", "a", 90, BOUNDS)
        await files.reserve("files/1", "a", 100, BOUNDS)
        await files.reserve("files/2", "b", 50, BOUNDS)
        whole = await files.stored_bytes()
        await files.forget("files/1")
        await files.forget("files/1")

        assert whole == (150, {"a": 100, "b": 50}, {"a": 1, "b": 1})
        assert await files.stored_bytes() == (50, {"b": 50}, {"b": 1})
        await files.forget("files/2")
        assert await connection.command("EXISTS", "fleet:stored:bytes", "fleet:stored:sizes") == 0


@pytest.mark.parametrize(
    ("free_bytes", "size_bytes"), [(200 * MIB, 150 * MIB), (99 * MIB, 0), (0, 1)]
)
def test_a_file_leaves_the_reserve(free_bytes: int, size_bytes: int) -> None:
    disk = Disk(total_bytes=1000 * MIB, free_bytes=free_bytes)
    with pytest.raises(StorageUnavailable, match="FLEET_DISK_RESERVE_BYTES"):
        demand_room_for_file(disk, size_bytes, 1000 * MIB)

    demand_room_for_file(disk._replace(free_bytes=250 * MIB), 150 * MIB, 1000 * MIB)


def test_new_jobs_leave_half_of_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [60 * MIB]
    monkeypatch.setattr("api_shim.disk_room.disk_of", lambda _: Disk(1000 * MIB, free[0]))
    monkeypatch.setattr("api_shim.disk_room._LOOK_S", 0)
    disk = RedisDisk(tmp_path, 100 * MIB)
    disk.demand_room()
    free[0] = 40 * MIB
    with pytest.raises(RelayFull, match="FLEET_DISK_RESERVE_BYTES"):
        disk.demand_room()
    free[0] = 60 * MIB

    disk.demand_room()


async def upload(http: httpx.AsyncClient, size_bytes: int) -> httpx.Response:
    form = {"purpose": "batch"}
    return await http.post("/v1/files", data=form, files={"file": ("f", b"x" * size_bytes)})


async def test_a_tenant_whose_files_are_full_stops_nobody_else(own_redis: RedisServer) -> None:
    limits = {"tenant_files_bytes": 200 * KIB, "files_bytes": 300 * KIB, "tenant_share": 1}
    with keyed(own_redis.url, **limits) as shim:
        async with shim.caller("a") as ann, shim.caller("b") as bob:
            first = await upload(ann, 120 * KIB)
            over = await upload(ann, 120 * KIB)
            others = await upload(bob, 120 * KIB)
            over_all = await upload(bob, 79 * KIB)
            deleted = await ann.delete(f"/v1/files/{first.json()['id']}")
            after = await upload(ann, 120 * KIB)

    assert [each.status_code for each in (first, over, others, over_all)] == [200, 413, 200, 503]
    assert over.json()["error"]["code"] == "file_quota_full"
    assert "FLEET_TENANT_FILES_BYTES" in over.json()["error"]["message"]
    assert "FLEET_FILES_BYTES" in over_all.json()["error"]["message"]
    assert int(over_all.headers["retry-after"]) >= 1
    assert [deleted.status_code, after.status_code] == [200, 200]


async def test_a_tenant_leaves_others_half_of_what_is_free(own_redis: RedisServer) -> None:
    with keyed(own_redis.url, files_bytes=MIB) as shim:
        async with shim.caller("a") as ann, shim.caller("b") as bob:
            filling = [await upload(ann, 120 * KIB) for _ in range(6)]
            others = [await upload(bob, 120 * KIB) for _ in range(2)]
            tiny = [await upload(bob, 1) for _ in range(9)]

    assert [each.status_code for each in filling] == [200] * 4 + [413] * 2
    assert "FLEET_TENANT_SHARE" in filling[-1].json()["error"]["message"]
    assert [each.status_code for each in others] == [200] * 2
    assert tiny[-1].status_code == 413  # each counts as 64 KiB


@pytest.mark.parametrize("size_bytes", [0, 1])
async def test_small_files_count_as_64_kib_until_they_are_deleted(
    own_redis: RedisServer, size_bytes: int
) -> None:
    with keyed(own_redis.url, tenant_files_bytes=300 * KIB, tenant_share=1) as shim:
        async with shim.caller("a") as ann, shim.admin as admin:
            taken = [await upload(ann, size_bytes) for _ in range(6)]
            held = [await held_by(admin, "a")]
            for each in taken[:2]:
                await ann.delete(f"/v1/files/{each.json()['id']}")
            held.append(await held_by(admin, "a"))
            again = [await upload(ann, size_bytes) for _ in range(3)]

    assert [each.status_code for each in taken] == [200] * 4 + [413] * 2
    assert [each.json()["bytes"] for each in taken[:4]] == [size_bytes] * 4
    assert held == [4 * 64 * KIB, 2 * 64 * KIB]
    assert [each.status_code for each in again] == [200, 200, 413]


async def test_the_number_of_files_is_bounded_however_small_they_are(
    own_redis: RedisServer,
) -> None:
    # 819,200 files of a byte were within 50 GiB, and 0.8 GB of records in Redis.
    with keyed(own_redis.url, tenant_files=3) as shim:
        async with shim.caller("a") as ann, shim.caller("b") as bob, shim.admin as admin:
            taken = [await upload(ann, 1) for _ in range(5)]
            others = await upload(bob, 1)
            limits = (await admin.get("/api/v1/limits")).json()["limits"]
            ended = await ann.post(
                "/v1/batches",
                json={
                    "input_file_id": taken[0].json()["id"], "completion_window": "24h",
                    "endpoint": "/v1/chat/completions",
                },
            )  # fmt: skip
            await ann.delete(f"/v1/files/{taken[0].json()['id']}")
            again = [await upload(ann, 1) for _ in range(2)]

    assert [each.status_code for each in taken] == [200] * 3 + [413] * 2
    error = taken[-1].json()["error"]
    assert error["code"] == "file_quota_full"
    assert "3 files" in error["message"]
    assert "FLEET_TENANT_FILES)" in error["message"]
    assert (others.status_code, ended.status_code) == (200, 413)
    assert [each.status_code for each in again] == [200, 413]
    (told,) = [each for each in limits if each["what"] == "number of files of tenant a"]
    assert told == {
        "what": "number of files of tenant a", "held": 3, "limit": 3, "unit": "files",
        "setting": "FLEET_TENANT_FILES",
    }  # fmt: skip


async def test_a_batch_whose_results_have_no_room_is_refused(own_redis: RedisServer) -> None:
    # Results are counted and never refused: one input, and batches without end, filled what
    # others may store, and Redis with records of files.
    with keyed(own_redis.url, tenant_files_bytes=200 * KIB) as shim:
        async with shim.caller("a") as ann, shim.caller("b") as bob, shim.admin as admin:
            answers = []
            for each in (ann, ann, bob):
                file = (await upload(each, 1)).json()["id"]
                answers.append(await each.post("/v1/batches", json=batch_of(file)))
            held = [await held_by(admin, each) for each in ("a", "b")]

    assert [each.status_code for each in answers] == [200, 413, 200]
    assert answers[1].json()["error"]["code"] == "file_quota_full"
    assert held == [2 * 64 * KIB, 64 * KIB]


def batch_of(file: str) -> dict[str, str]:
    window = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return {"input_file_id": file, **window}


async def held_by(admin: httpx.AsyncClient, tenant: str) -> int:
    limits = (await admin.get("/api/v1/limits")).json()["limits"]
    (held,) = [each["held"] for each in limits if each["what"] == f"files of tenant {tenant}"]
    return int(held)


@needs_mount
async def test_a_tenant_leaves_others_half_of_the_disk(tmp_path: Path) -> None:
    redis = RedisOnASmallDisk(tmp_path, size_mib=32)
    try:
        with keyed(redis.url, files_url=f"{redis.disk}/files") as shim:
            async with shim.caller("a") as ann, shim.caller("b") as bob:
                filling = await asyncio.gather(*(upload(ann, 3 * MIB) for _ in range(8)))
                others = await upload(bob, 3 * MIB)
    finally:
        redis.stop()

    taken = [each.status_code for each in filling]
    assert 3 <= taken.count(200) <= 5
    assert set(taken) == {200, 413}
    assert others.status_code == 200


async def test_a_file_of_unknown_size_is_counted_as_it_comes(own_redis: RedisServer) -> None:
    with serving(own_redis.url, tenant_files_bytes=20 * MIB) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:

            async def form(mib: int) -> AsyncIterator[bytes]:
                yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
                yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
                for _ in range(mib):
                    yield b"x" * MIB
                yield b"\r\n--b--\r\n"

            kind = {"content-type": "multipart/form-data; boundary=b"}
            small = await http.post("/v1/files", content=form(3), headers=kind)
            large = await http.post("/v1/files", content=form(18), headers=kind)
            again = await http.post("/v1/files", content=form(3), headers=kind)

    assert [each.status_code for each in (small, large, again)] == [200, 413, 200]


@needs_mount
async def test_a_file_is_deleted_while_redis_cannot_write(tmp_path: Path) -> None:
    redis = RedisOnASmallDisk(tmp_path, size_mib=16)
    try:
        files = f"{redis.disk}/files"
        with serving(redis.url, files_url=files, disk_reserve_bytes=0) as url:
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                file = (await upload(http, 4 * MIB)).json()["id"]
                redis.fill()
                async with asyncio.timeout(20):
                    while (await upload(http, MIB)).status_code != 503:
                        await asyncio.sleep(0.05)
                    while (ready := await http.get("/readyz")).status_code != 503:
                        redis.say("SET", "filler", "x" * 10_000, "EX", "60")
                deleted = await http.delete(f"/v1/files/{file}")
                gone = await http.get(f"/v1/files/{file}")
                after = await http.get("/readyz")
    finally:
        redis.stop()

    assert "can only be read" in ready.json()["detail"]
    assert [deleted.status_code, gone.status_code, after.status_code] == [200, 404, 200]
