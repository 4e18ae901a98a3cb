"""The table of API keys: it holds digests only, and always a key that may manage the others."""

import asyncio

import pytest
from support.redis_server import RedisServer
from support.relay import relay_on

from contract import redis_keys
from contract.errors import InvalidRequest, LastAdmin, UnknownKey
from contract.tenants import EVERY, KEY, USE, KeyChange, KeyRotation, NewKey
from relay.access.audit_log import AuditLog
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


async def test_a_key_of_before_permissions_may_use_and_not_change(
    redis_url: str, own_redis: RedisServer
) -> None:
    async with relay_on(redis_url) as relay:
        old = '0 1.0 {"digest":"d","wish":{"tenant":"a","weight":1.0,"admin":false,"name":""}}'
        own_redis.say("HSET", redis_keys.KEYS, "revision", "r", "0" * 16, old)
        (entry,) = (await ApiKeys(relay.connection).refresh(ApiKeyTable())).entries.values()

        assert entry.owner.permissions == USE
        assert (entry.owner.models, entry.owner.backends) == (None, None)


async def test_a_change_keeps_the_secret_and_what_it_does_not_name(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        await tenants.issue(ADMIN)
        issued = await tenants.issue(NewKey(tenant="a", limit_jobs=3, models=("m",)))
        await tenants.change(issued.id, KeyChange(permissions=("chat",), expires_in_s=60))
        found = (await tenants.refresh(ApiKeyTable())).find(issued.key.get_secret_value())

        assert found is not None
        assert (found.owner.permissions, found.owner.models) == (("chat",), ("m",))
        assert (found.facts.limit_jobs, found.facts.created_at) == (3, issued.created_at)
        assert found.facts.expires_at == pytest.approx(issued.created_at + 60, abs=5)
        changed = await tenants.change(issued.id, KeyChange(models=None, expires_in_s=None))
        assert (changed.models, changed.expires_at, changed.limit_jobs) == (None, None, 3)


async def test_an_admin_is_made_and_unmade_but_never_the_last(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        boss = await tenants.issue(ADMIN)
        a = await tenants.issue(NewKey(tenant="a", permissions=("chat",), models=("m",)))
        for change in (KeyChange(admin=False), KeyChange(permissions=("chat",)),
                       KeyChange(expires_in_s=9)):  # fmt: skip
            with pytest.raises(LastAdmin):
                await tenants.change(boss.id, change)
        made = await tenants.change(a.id, KeyChange(admin=True))
        unmade = await tenants.change(boss.id, KeyChange(permissions=("chat", "embed")))

        assert (made.permissions, made.models) == (EVERY, None)
        assert (unmade.admin, unmade.permissions) == (False, ("chat", "embed"))


async def test_of_two_changes_at_once_none_is_lost_in_silence(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        await tenants.issue(ADMIN)
        issued = await tenants.issue(NewKey(tenant="a"))
        wishes = [KeyChange(limit_jobs=1), KeyChange(limit_tokens=2), KeyChange(weight=3)]
        done = await asyncio.gather(
            *(tenants.change(issued.id, wish) for wish in wishes), return_exceptions=True
        )
        (found,) = [
            entry.facts
            for entry in (await tenants.refresh(ApiKeyTable())).entries.values()
            if entry.facts.id == issued.id
        ]
        kept = [found.limit_jobs == 1, found.limit_tokens == 2, found.weight == 3]

        assert kept == [not isinstance(each, InvalidRequest) for each in done]


async def test_a_rotated_key_has_the_same_rights_and_ends_after_the_overlap(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        await tenants.issue(ADMIN)
        old = await tenants.issue(NewKey(tenant="a", models=("m",), expires_in_s=1000))
        new = await tenants.rotate(old.id, KeyRotation(overlap_s=60))
        table = await tenants.refresh(ApiKeyTable())
        was, now = (table.find(each.key.get_secret_value()) for each in (old, new))

        assert was is not None
        assert now is not None
        assert now.owner.model_copy(update={"key_id": was.facts.id}) == was.owner
        assert (now.facts.replaces, was.facts.replaces) == (old.id, None)
        assert was.facts.expires_at == pytest.approx(new.created_at + 60, abs=1)
        assert now.facts.expires_at == pytest.approx(new.created_at + 1000, abs=1)
        assert table.successor_of(was) == now
        assert table.successor_of(now) is None
        again = await tenants.rotate(old.id, KeyRotation(overlap_s=2_000_000))
        assert again.replaces == old.id
        listed = (await tenants.refresh(ApiKeyTable())).entries
        assert listed[old.id].facts.expires_at == was.facts.expires_at


async def test_a_full_redis_takes_what_an_admin_does_against_it(redis_url: str) -> None:
    # Who fills it would otherwise keep admins from limiting him, and his acts out of the log.
    async with relay_on(redis_url) as relay:
        tenants, log = ApiKeys(relay.connection), AuditLog(relay.connection)
        await tenants.issue(ADMIN)
        old = await tenants.issue(NewKey(tenant="a"))
        await relay.connection.command("CONFIG", "SET", "maxmemory", 1)
        await tenants.change(old.id, KeyChange(limit_jobs=1))
        new = await tenants.rotate(old.id, KeyRotation(overlap_s=60))
        await tenants.issue(NewKey(tenant="b"))
        await log.append(old.owner, {"action": "tried", "status": 403}, refused=True)
        listed = (await tenants.refresh(ApiKeyTable())).entries
        page = await log.page(limit=5, before=None, refused=True)
        await relay.connection.command("CONFIG", "SET", "maxmemory", 0)

        assert listed[new.id].facts.limit_jobs == 1
        assert [entry.action for entry in page.entries] == ["tried"]


async def test_the_last_admin_may_be_rotated(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        boss = await tenants.issue(ADMIN)
        new = await tenants.rotate(boss.id, KeyRotation(overlap_s=0))
        listed = (await tenants.refresh(ApiKeyTable())).entries

        assert (new.admin, new.expires_at) == (True, None)
        assert not listed[boss.id].is_valid(new.created_at + 1)
        await asyncio.sleep(0.05)  # without an overlap it lasts as long as a clock can tell
        with pytest.raises(InvalidRequest, match="expired"):
            await tenants.rotate(boss.id, KeyRotation())
        with pytest.raises(UnknownKey):
            await tenants.rotate("0" * 16, KeyRotation())


async def test_uses_are_kept_as_long_as_their_key(redis_url: str, own_redis: RedisServer) -> None:
    async with relay_on(redis_url) as relay:
        tenants = ApiKeys(relay.connection)
        boss = await tenants.issue(ADMIN)
        await tenants.note_uses({boss.id: 5.5, "f" * 16: 6.5})
        (used,) = await tenants.with_uses([boss])

        assert used.last_used_at == 5.5
        assert own_redis.say("HLEN", redis_keys.KEYS_USED).strip() == b":1"
