"""Who did what is in the audit log, and who was refused is in another one.

Subjects: api_shim/access/audit_trail.py, relay/access/audit_log.py.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.dying import died
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.relay import relay_on
from support.shim import CHAT, problem, stage

from contract import redis_keys
from contract.errors import RelayUnavailable
from contract.tenants import Tenant
from relay.access.audit_log import MOST_OF_A_TENANT, MOST_REFUSED, AuditLog


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    """Not on the session's Redis: its shim would take what the next test empties for a loss."""
    with keyed(own_redis.url) as shim:
        yield shim


RIGHTS = "chat models:admin; models small*; backends *"


async def entries(admin: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await admin.get("/api/v1/audit", params=query)
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


async def test_what_changes_the_fleet_is_recorded_with_who_and_what(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    wish = {"models": ["small*"], "permissions": ["chat", "models:admin"]}
    told = fleet.issue("a", name="laptop", **wish)
    async with (
        stage(fleet.url, own_redis.url) as at,
        fleet.admin as admin,
        httpx.AsyncClient(base_url=fleet.url, headers={"x-api-key": told["key"]}) as a,
    ):
        await at.announce("box", "small-1")
        body = {"model": "small-1", "backend": "box"}
        job = (await a.post("/api/v1/jobs/delete", json=body)).json()["id"]
        await admin.post("/api/v1/queues/box.chat/pause", json={"reason": "tonight"})
        await admin.delete(f"/api/v1/keys/{told['id']}")
        found = await entries(admin)
        rows = [(each["action"], each["tenant"], each["subject"]) for each in found]
        boss = fleet.key.split("_")[1]

    assert rows == [
        ("DELETE /api/v1/keys/{id}", "boss", f"{told['id']} of a"),
        ("POST /api/v1/queues/{queue}/pause", "boss", "box.chat"),
        ("POST /api/v1/jobs/delete", "a", f"small-1 on box, job {job}"),
        ("POST /api/v1/keys", "boss", f"{told['id']} of a: {RIGHTS}"),
        ("POST /api/v1/keys", "default", f"{boss} of boss: admin; models *; backends *"),
    ]  # fmt: skip
    assert [each["status"] for each in found] == [200, 200, 202, 201, 201]
    assert (found[2]["key"], found[2]["key_name"]) == (told["id"], "laptop")
    assert (found[0]["key"], found[0]["address"]) == (boss, "127.0.0.1")
    assert found[0]["request_id"]
    assert told["key"] not in str(found)


async def test_reads_and_what_was_invalid_are_not_recorded(fleet: Keyed) -> None:
    async with fleet.admin as admin:
        before = await entries(admin)
        await admin.get("/api/v1/keys")
        assert (await admin.post("/api/v1/keys", json={"tenant": "No!"})).status_code == 422
        assert (await admin.delete("/api/v1/keys/ffff0000")).status_code == 404

        assert await entries(admin) == before


async def test_what_admins_do_to_dead_letters_is_recorded(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    async with (
        stage(fleet.url, own_redis.url) as at,
        fleet.admin as admin,
        fleet.caller("a") as a,
    ):
        await at.announce()
        dead = [(await died(at.relay, tenant=Tenant(name="a"))).id for _ in range(4)]
        before = len(await entries(admin))
        await a.delete(f"/api/v1/dead/{dead[0]}")
        again = (await admin.post(f"/api/v1/jobs/{dead[1]}/retry")).json()["id"]
        await admin.post("/api/v1/dead/redrive", json={"dry_run": True})
        await admin.post("/api/v1/dead/redrive", json={"limit": 1, "queue": "scripted.chat"})
        await admin.delete("/api/v1/dead", params={"tenant": "nobody"})
        await admin.delete("/api/v1/dead", params={"tenant": "a"})
        found = await entries(admin)
        told = [(each["action"], each["subject"]) for each in found[: len(found) - before]]

    assert told == [
        ("DELETE /api/v1/dead", "dead letters: 1, tenant a"),
        ("POST /api/v1/dead/redrive", "dead letters: 1, queue scripted.chat"),
        ("POST /api/v1/jobs/{id}/retry", f"job {dead[1]} of a, again as {again}"),
    ]


async def test_a_model_that_a_request_pulls_is_recorded_once_a_minute(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    told = fleet.issue("a", permissions=["chat", "models:write"])
    async with (
        stage(fleet.url, own_redis.url) as at,
        fleet.admin as admin,
        httpx.AsyncClient(base_url=fleet.url, headers={"x-api-key": told["key"]}) as a,
    ):
        await at.announce("box", "there")
        before = len(await entries(admin))
        wish = {"messages": CHAT["messages"], "on_missing": "pull"}
        await a.post("/api/v1/jobs/chat", json={**wish, "model": "there"})
        first, _ = [
            (await a.post("/api/v1/jobs/chat", json={**wish, "model": "new:1b"})).json()["id"]
            for _ in range(2)
        ]
        found = await entries(admin)

    assert len(found) == before + 1
    assert (found[0]["action"], found[0]["key"]) == ("on_missing: pull", told["id"])
    assert (found[0]["tenant"], found[0]["subject"]) == ("a", f"new:1b on box, job {first}")


async def test_a_refusal_is_recorded_apart_and_once_a_minute(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    async with fleet.caller("a") as a, fleet.admin as admin:
        for _ in range(5):
            problem(await a.delete("/api/v1/keys/ffff0000"), 403, "not_allowed")
            assert (
                await a.request("DELETE", "/api/delete", json={"model": "m"})
            ).status_code == 403
            problem(await a.get("/api/v1/audit"), 403, "not_allowed")
        refused = [(each["action"], each["tenant"]) for each in await entries(admin, refused=True)]

        assert sorted(refused) == [
            ("DELETE /api/delete", "a"), ("DELETE /api/v1/keys/{id}", "a"),
            ("GET /api/v1/audit", "a"),
        ]  # fmt: skip
        assert all(each["tenant"] != "a" for each in await entries(admin))
    assert int(own_redis.say("TTL", redis_keys.AUDIT_REFUSED).strip(b":\r\n")) > 0


async def test_nobody_pushes_the_entries_of_others_out_of_the_log(own_redis: RedisServer) -> None:
    boss, loud, quiet = Tenant(name="a", admin=True), Tenant(name="a"), Tenant(name="b")
    async with relay_on(own_redis.url) as relay:
        log = AuditLog(relay.connection)

        async def write(who: Tenant, subject: object, *, refused: bool = False) -> None:
            fields = {"action": "x" * 900, "subject": str(subject), "status": 200}
            await log.append(who, fields, refused=refused)

        for who in (boss, quiet):
            await write(who, who.name)
        await write(quiet, "refused b", refused=True)
        for number in range(MOST_OF_A_TENANT + 50):
            await write(loud, number)
            await write(loud, number, refused=True)
        first = await log.page(limit=3, before=None, refused=False)
        second = await log.page(limit=3, before=first.next, refused=False)
        done = (await log.page(limit=1000, before=None, refused=False)).entries
        refused = (await log.page(limit=1000, before=None, refused=True)).entries

        newest = [str(MOST_OF_A_TENANT + 49 - each) for each in range(MOST_OF_A_TENANT)]
        assert [each.subject for each in (*first.entries, *second.entries)] == newest[:6]
        assert [each.subject for each in done] == [*newest, "b", "a"]
        assert [each.subject for each in refused] == [*newest[:MOST_REFUSED], "refused b"]
        assert len(done[0].action) == 300
        assert [each.id for each in done] == sorted({each.id for each in done}, reverse=True)
        assert own_redis.say("LLEN", redis_keys.audit_of("a")) == b":500\r\n"


async def test_an_entry_that_another_program_wrote_is_passed_over(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        log = AuditLog(relay.connection)
        fields = {"action": "x", "subject": "y", "status": 200}
        await log.append(Tenant(name="a"), fields, refused=False)
        for number, text in enumerate(("{", "[]", "{}", "\xff")):
            own_redis.say("ZADD", redis_keys.AUDIT, str(number), text)
        for score in ("inf", "-inf", "1e300", "9007199254740991"):
            own_redis.say("ZADD", redis_keys.AUDIT, score, f"at {score}")
        await log.append(Tenant(name="a"), fields | {"subject": "z"}, refused=False)

        found = await log.page(limit=5, before=None, refused=False)
        assert [each.subject for each in found.entries] == ["z", "y"]
        own_redis.say("DEL", redis_keys.AUDIT)
        own_redis.say("SET", redis_keys.AUDIT, "?")
        with pytest.raises(RelayUnavailable):
            await log.append(Tenant(name="a"), fields, refused=False)


async def test_a_page_before_an_id_that_cannot_be_is_empty_or_refused(
    own_redis: RedisServer,
) -> None:
    with keyed(own_redis.url) as shim:
        async with shim.admin as admin:
            for before in ("0-0", "00-0", "9999999999999999999-1", "98413526969329631908-3", "٣-٣"):
                answer = await admin.get("/api/v1/audit", params={"before": before})
                assert answer.status_code == (200 if len(before) < 22 and before.isascii() else 422)
