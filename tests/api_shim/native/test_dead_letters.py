"""Dead letters as callers meet them: list, look, run again, forget, each tenant its own."""

from typing import Any

from support.dying import died
from support.keys import keyed
from support.redis_server import RedisServer
from support.relay import relay_on
from support.shim import Stage, problem, stage

from contract.tenants import Tenant

DEAD = "/api/v1/dead"


def retry_path(job: str) -> str:
    return f"/api/v1/jobs/{job}/retry"


async def listed(at: Any, **params: Any) -> list[str]:
    return [letter["id"] for letter in (await at.get(DEAD, params=params)).json()["letters"]]


async def test_a_dead_letter_is_listed_with_what_it_died_of(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        record = await died(at.relay, "why?")
        (letter,) = (await at.http.get(DEAD)).json()["letters"]
        view = (await at.http.get(f"{DEAD}/{record.id}")).json()

        assert (letter["id"], letter["status"], letter["tenant"]) == (
            record.id, "failed", "default",
        )  # fmt: skip
        assert letter["error"]["code"] == view["error"]["code"] == "server_fault"
        assert view["request"]["messages"][0]["content"] == "why?"


async def test_the_list_is_paged_and_filtered(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        order = [(await died(at.relay)).id for _ in range(3)][::-1]
        page = (await at.http.get(DEAD, params={"limit": 2})).json()
        rest = await listed(at.http, limit=2, before=page["next"])

        assert [letter["id"] for letter in page["letters"]] + rest == order
        assert await listed(at.http, queue="other.chat") == []
        assert await listed(at.http, kind="chat", tenant="default") == order
        problem(await at.http.get(DEAD, params={"before": "x"}), 400, "invalid_cursor")


async def test_a_retry_is_accepted_once_and_then_answered_the_same(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        record = await died(at.relay)
        first, again = [await at.http.post(retry_path(record.id)) for _ in range(2)]
        new = await at.relay.records.get(first.json()["id"])

        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["id"] == again.json()["id"] == first.headers["x-fleet-job"]
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert (new.retry_of, new.tenant) == (record.id, "default")
        assert await listed(at.http) == []


async def test_only_a_dead_letter_is_retried(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        job = await at.relay.enqueue()

        assert job in problem(await at.http.post(retry_path(job)), 409, "not_dead")["detail"]
        problem(await at.http.post(retry_path("0" * 32)), 404, "job_not_found")
        problem(await at.http.post(retry_path("nonsense")), 404, "job_not_found")


async def test_a_retry_without_a_worker_is_refused_and_stays_possible(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        record = await died(at.relay)
        refused = await at.http.post(retry_path(record.id))
        still = await listed(at.http)
        await at.announce()

        problem(refused, 503, "no_worker")
        assert still == [record.id]
        assert (await at.http.post(retry_path(record.id))).status_code == 202


async def test_a_purged_letter_is_gone(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        record = await died(at.relay)
        gone = await at.http.delete(f"{DEAD}/{record.id}")
        again = await at.http.delete(f"{DEAD}/{record.id}")

        assert gone.json() == {"purged": 1, "next": None}
        problem(again, 404, "job_not_found")
        problem(await at.http.get(f"/api/v1/jobs/{record.id}"), 404, "job_not_found")


async def test_a_job_that_is_not_dead_is_not_purged(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        refused = await at.http.delete(f"{DEAD}/{job}")

        problem(refused, 404, "job_not_found")
        assert (await at.relay.records.get(job)).status == "queued"


async def test_all_that_match_are_purged(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        kept = (await died(at.relay, queue="other.chat")).id
        for _ in range(3):
            await died(at.relay)
        told = (await at.http.delete(DEAD, params={"queue": "scripted.chat"})).json()

        assert told == {"purged": 3, "next": None}
        assert await listed(at.http) == [kept]


async def test_cancel_of_a_dead_letter_answers_that_it_has_failed(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        record = await died(at.relay)
        told = [(await at.http.delete(f"/api/v1/jobs/{record.id}")).json() for _ in range(2)]

        assert [each["status"] for each in told] == ["failed", "failed"]
        assert await listed(at.http) == [record.id]


async def test_a_tenant_meets_its_own_dead_letters_only(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as fleet:
        async with relay_on(own_redis.url) as relay, fleet.caller("a") as a, fleet.admin as boss:
            ours = (await died(relay, tenant=Tenant(name="a"))).id
            theirs = (await died(relay, tenant=Tenant(name="b"))).id

            assert await listed(a) == [ours]
            assert await listed(boss) == [theirs, ours]
            problem(await a.get(f"{DEAD}/{theirs}"), 404, "job_not_found")
            problem(await a.post(retry_path(theirs)), 404, "job_not_found")
            problem(await a.delete(f"{DEAD}/{theirs}"), 404, "job_not_found")
            assert (await a.delete(DEAD)).json()["purged"] == 1
            assert await listed(boss) == [theirs]


async def test_a_retry_needs_what_the_job_needs(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as fleet:
        async with stage(fleet.url, own_redis.url) as at:
            await at.announce()
            letter = retry_path((await died(at.relay, tenant=Tenant(name="a"))).id)
            for rights, status in (
                ({"permissions": ["embed"]}, 403),
                ({"models": ["other"]}, 403),
                ({"backends": ["other"]}, 403),
                ({"permissions": ["chat"], "models": ["m"]}, 202),
            ):
                async with fleet.caller("a", **rights) as a:
                    assert (await a.post(letter)).status_code == status, rights


async def test_an_admins_retry_is_the_tenants_job(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as fleet:
        async with relay_on(own_redis.url) as relay, fleet.admin as boss:
            fleet.issue("a", weight=4)
            await Stage(boss, relay).announce()
            dead = await died(relay, tenant=Tenant(name="a"))
            told = await boss.post(retry_path(dead.id))
            new = await relay.records.get(told.json()["id"])

            assert (new.tenant, new.retry_of) == ("a", dead.id)


async def test_messages_that_no_worker_could_read_are_counted_shown_and_forgotten(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.relay.unreadable.put("a.chat", reason="it is not JSON", size_bytes=9, data=b"{")
        told = (await at.http.get(f"{DEAD}/messages")).json()
        listed_count = (await at.http.get(DEAD)).json()["unreadable"]
        gone = (await at.http.delete(f"{DEAD}/messages")).json()

        (found,) = told["messages"]
        assert (found["queue"], found["data"], found["size_bytes"]) == ("a.chat", "ew==", 9)
        assert (told["total"], listed_count, gone["purged"]) == (1, 1, 1)
        assert (await at.http.get(f"{DEAD}/messages")).json()["total"] == 0
