"""The table of API keys: it holds digests only, and always a key that may manage the others."""

import asyncio

import pytest
from support.redis_server import RedisServer
from support.relay import relay_on

from contract import redis_keys
from contract.errors import InvalidRequest, LastAdmin, UnknownKey
from contract.tenants import KEY, NewKey
from relay.api_keys import ApiKeys, ApiKeyTable, revoke_key

ADMIN = NewKey(tenant="boss", admin=True)


@pytest.fixture
def redis_url(own_redis: RedisServer) -> str:
    """Not the session's: its shim would take what the next test empties for a loss of keys."""
    return own_redis.url


async def test_a_key_is_found_and_names_its_tenant(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        await tenants.issue(ADMIN)
        issued = await tenants.issue(NewKey(tenant="a", weight=2.5, limit_jobs=3, name="laptop"))
        found = (await tenants.refresh(ApiKeyTable())).find(issued.key.get_secret_value())

        assert KEY.match(issued.key.get_secret_value())
        assert found is not None
        assert found.facts.owner == issued.owner
        assert (found.facts.weight, found.facts.limit_jobs, found.facts.name) == (2.5, 3, "laptop")


async def test_another_secret_with_the_same_id_is_not_the_key(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        key = (await tenants.issue(ADMIN)).key.get_secret_value()
        table = await tenants.refresh(ApiKeyTable())
        forged = [key[:-1] + ("A" if key[-1] != "A" else "B"), key[:-1], key + "A", key.upper(), ""]

        assert [table.find(each) for each in forged] == [None] * len(forged)


async def test_redis_holds_no_key(redis_url: str, own_redis: RedisServer) -> None:
    async with relay_on(redis_url) as relay:
        issued = await ApiKeys(relay.connection).issue(ADMIN)
        secret = issued.key.get_secret_value().rpartition(issued.id)[2].lstrip("_")
        held = own_redis.say("HGETALL", redis_keys.KEYS).decode()

        assert issued.id in held
        assert secret not in held
        assert secret not in repr(issued)


@pytest.mark.parametrize(
    "wish", [NewKey(tenant="a"), NewKey(tenant="a", admin=True, expires_in_s=60)]
)
async def test_the_first_key_must_be_an_admins_without_expiry(wish: NewKey, redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        with pytest.raises(InvalidRequest, match="--admin"):
            await tenants.issue(wish)

        assert (await tenants.refresh(ApiKeyTable())).count == 0


async def test_the_last_admins_key_cannot_be_revoked_before_the_others(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        admin, other = await tenants.issue(ADMIN), await tenants.issue(NewKey(tenant="a"))
        await tenants.issue(NewKey(tenant="b", admin=True, expires_in_s=60))
        with pytest.raises(LastAdmin):
            await tenants.revoke(admin.id)
        second = await tenants.issue(ADMIN)

        assert (await tenants.revoke(admin.id)).id == admin.id
        assert (await tenants.revoke(other.id)).tenant == "a"
        with pytest.raises(LastAdmin):
            await tenants.revoke(second.id)


async def test_two_last_admins_cannot_revoke_each_other(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        admins = [await tenants.issue(ADMIN) for _ in range(2)]
        await tenants.issue(NewKey(tenant="a"))
        revoked = await asyncio.gather(
            *(tenants.revoke(each.id) for each in admins), return_exceptions=True
        )

        assert sorted(type(each).__name__ for each in revoked) == ["KeyFacts", "LastAdmin"]


async def test_an_emptied_table_differs_from_a_lost_one(
    redis_url: str, own_redis: RedisServer
) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        issued = await tenants.issue(ADMIN)
        await tenants.revoke(issued.id)
        emptied = await tenants.refresh(ApiKeyTable())
        own_redis.say("DEL", redis_keys.KEYS)
        lost = await tenants.refresh(emptied)

        assert (emptied.count, bool(emptied.revision)) == (0, True)
        assert (lost.count, bool(lost.revision)) == (0, False)


async def test_a_refresh_of_an_unchanged_table_returns_the_same_table(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        await tenants.issue(ADMIN)
        known = await tenants.refresh(ApiKeyTable())

        assert await tenants.refresh(known) is known
        await tenants.issue(NewKey(tenant="a"))
        assert (await tenants.refresh(known)).count == 2


async def test_an_entry_of_a_newer_version_counts_and_matches_no_key(
    redis_url: str, own_redis: RedisServer
) -> None:
    async with relay_on(redis_url) as relay:
        own_redis.say("HSET", redis_keys.KEYS, "revision", "r", "0" * 16, '1 0.0 {"v": 9}')
        table = await ApiKeys(relay.connection).refresh(ApiKeyTable())

        assert (table.count, dict(table.entries)) == (1, {})


async def test_an_expired_key_is_found_and_not_valid(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        await tenants.issue(ADMIN)
        issued = await tenants.issue(NewKey(tenant="a", expires_in_s=60))
        found = (await tenants.refresh(ApiKeyTable())).entries[issued.id]

        assert found.is_valid(issued.created_at + 59)
        assert not found.is_valid(issued.created_at + 60)


async def test_a_revocation_runs_twice_without_harm(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        await tenants.issue(ADMIN)
        issued = await tenants.issue(NewKey(tenant="a"))
        first, second = await relay.connection.calls([revoke_key(issued.id, "r")] * 2)

        assert (bool(first), second) == (True, None)
        with pytest.raises(UnknownKey):
            await tenants.revoke(issued.id)
