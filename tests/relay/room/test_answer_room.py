"""Long answers of a tenant take a part of what Redis has left, so that others find room."""

import asyncio

import pytest
from support.redis_server import RedisServer
from support.relay import relay_on

from contract.errors import RelayFull
from contract.tenants import DEFAULT_TENANT
from relay.room import answer_room
from relay.room.answer_room import AnswerRoom

MIB = 2**20


async def room_of(redis: RedisServer, left_bytes: int, relay_room: AnswerRoom) -> None:
    """Let about so much be left below the part of `maxmemory` that answers may fill."""
    used, _ = await relay_room._connection.memory()
    redis.say("CONFIG", "SET", "maxmemory", str(int((used + left_bytes) / 0.95)))
    await relay_room.look()


async def test_a_tenant_takes_an_eighth_between_two_looks(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        room = AnswerRoom(relay.connection)
        await room_of(own_redis, 80 * MIB, room)
        room.charge("a", 9 * MIB)
        before = room.is_spent("a")
        room.charge("a", 2 * MIB)

        assert (before, room.is_spent("a"), room.is_spent("b")) == (False, True, False)
        await room.look()
        assert not room.is_spent("a")


async def test_what_others_took_is_not_there_for_a_tenant(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        room = AnswerRoom(relay.connection)
        await room_of(own_redis, 80 * MIB, room)
        for at in range(60):
            room.charge(f"t{at}", MIB)
        room.charge("a", 3 * MIB)

        assert room.is_spent("a")


async def test_one_who_has_taken_nothing_gets_on_in_a_full_redis(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        room = AnswerRoom(relay.connection)
        await room_of(own_redis, -MIB, room)
        room.charge("a", 1)

        assert (room.is_spent("a"), room.is_spent("b")) == (True, False)


async def test_without_keys_or_a_bound_nobody_waits(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        room = AnswerRoom(relay.connection)
        room.charge("a", 10**12)
        assert not room.is_spent("a")
        await room.look()
        room.charge("a", 10**12)
        assert not room.is_spent("a")
        await room_of(own_redis, -MIB, room)
        room.charge(DEFAULT_TENANT.name, 10**12)
        assert not room.is_spent(DEFAULT_TENANT.name)


async def test_who_waits_gets_on_with_the_next_look(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url, reap_s=0.05) as relay:
        room = AnswerRoom(relay.connection)
        await room_of(own_redis, 8 * MIB, room)
        room.charge("a", 2 * MIB)
        waiting = asyncio.create_task(room.wait("a"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await room.look()
        await waiting


async def test_who_finds_no_room_gives_its_slot_to_others(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_room, "_WAIT_S", 0.2)
    async with relay_on(own_redis.url, reap_s=0.05) as relay:
        room = AnswerRoom(relay.connection)
        await room_of(own_redis, MIB, room)
        room.charge("a", MIB)
        with pytest.raises(RelayFull):
            await room.wait("a")


@pytest.mark.parametrize(
    ("left_bytes", "short_bytes"), [(200 * MIB, 64), (16 * MIB, 16), (MIB, 4), (-MIB, 4)]
)
async def test_what_is_short_fits_a_thousand_times_into_what_is_left(
    own_redis: RedisServer, left_bytes: int, short_bytes: int
) -> None:
    # 690 answers of 64 KiB, which nobody counted, filled a Redis of 64 MiB.
    async with relay_on(own_redis.url) as relay:
        room = AnswerRoom(relay.connection)
        before = room.short_bytes
        await room_of(own_redis, left_bytes, room)

        assert before == 64 * 1024
        assert room.short_bytes == pytest.approx(short_bytes * 1024, rel=0.1)
