"""Who is let in: with keys, without any, when they are revoked, and when Redis has lost them."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from support.keys import Keyed, bearer, client, keyed
from support.redis_server import RedisServer
from support.relay import relay_on
from support.shim import CHAT, problem, serving, sse, stage
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api_shim.http.authentication import Authenticator
from api_shim.settings import ShimSettings
from contract import redis_keys
from contract.tenants import KeyRotation, NewKey
from relay.api_keys import ApiKeys

PATHS = (
    "/api/v1/jobs", "/api/v1/backends", "/api/v1/keys", f"/api/v1/jobs/{'0' * 32}/events",
    "/metrics", "/nothing",
)  # fmt: skip
OPEN = ("/healthz", "/livez", "/readyz", "/docs", "/openapi.json")
WRONG = f"flk_{'0' * 16}_{'A' * 43}"


@pytest.fixture
def redis_url(own_redis: RedisServer) -> str:
    """Not the session's: its shim would take what the next test empties for a loss of keys."""
    return own_redis.url


@pytest.fixture
def fleet(redis_url: str) -> Iterator[Keyed]:
    with keyed(redis_url) as shim:
        yield shim


@pytest.mark.parametrize("path", PATHS)
async def test_every_path_asks_for_a_key(path: str, fleet: Keyed) -> None:
    for headers in ({}, bearer(WRONG), bearer("sk-other"), {"authorization": "Basic eDp5"}):
        answer = httpx.get(fleet.url + path, headers=headers)

        problem(answer, 401, "not_authenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/api/nothing", "/v1/nothing"])
async def test_drop_in_paths_ask_in_their_own_words(path: str, fleet: Keyed) -> None:
    answer = httpx.get(fleet.url + path)

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "error" in answer.json()


@pytest.mark.parametrize("path", OPEN)
async def test_probes_and_docs_do_not(path: str, fleet: Keyed) -> None:
    assert httpx.get(fleet.url + path).status_code == 200


@pytest.mark.parametrize("path", ["/healthz/", "//healthz", "/healthz/../api/v1/jobs", "/DOCS"])
async def test_what_looks_like_an_open_path_is_none(path: str, fleet: Keyed) -> None:
    async with httpx.AsyncClient() as http:
        request = http.build_request("GET", fleet.url)
        request.url = request.url.copy_with(raw_path=path.encode())

        problem(await http.send(request), 401, "not_authenticated")


async def test_a_key_is_taken_from_either_header_and_from_no_query(fleet: Keyed) -> None:
    key = fleet.key
    for headers in (
        bearer(key),
        {"authorization": f"bearer {key}"},
        {"x-api-key": key},
        {"authorization": "Bearer somebody-elses", "x-api-key": key},
        {"authorization": "Basic eDp5", "x-api-key": key},
    ):
        assert httpx.get(f"{fleet.url}/api/v1/keys", headers=headers).status_code == 200
    for query in (f"?key={key}", f"?api_key={key}", f"?access_token={key}"):
        problem(httpx.get(f"{fleet.url}/api/v1/keys{query}"), 401, "not_authenticated")


async def test_a_body_is_not_read_before_its_caller_is_known(fleet: Keyed) -> None:
    answer = httpx.post(f"{fleet.url}/api/v1/jobs/chat", content=b"{", headers=bearer(WRONG))

    assert "body" not in problem(answer, 401, "not_authenticated")["detail"]


async def test_a_tenant_sees_only_its_own_jobs(fleet: Keyed, redis_url: str) -> None:
    async with stage(fleet.url, redis_url) as at, fleet.caller("a") as a, fleet.caller("b") as b:
        await at.announce()
        job = (await a.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]
        path, absent = f"/api/v1/jobs/{job}", f"/api/v1/jobs/{'0' * 32}"
        for method, rest in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
            hidden = problem(await b.request(method, path + rest), 404, "job_not_found")
            nothing = problem(await b.request(method, absent + rest), 404, "job_not_found")

            assert hidden["detail"].replace(job, "0" * 32) == nothing["detail"]
        assert (await b.get("/api/v1/jobs")).json()["jobs"] == []
        assert [j["id"] for j in (await a.get("/api/v1/jobs")).json()["jobs"]] == [job]
        assert (await a.get(path)).json()["tenant"] == "a"
        assert (await a.get(path)).json()["status"] == "queued"


async def test_a_tenants_list_is_whole_whatever_others_enqueue(
    fleet: Keyed, redis_url: str
) -> None:
    async with stage(fleet.url, redis_url) as at, fleet.caller("a") as a, fleet.caller("b") as b:
        await at.announce()
        mine = [(await a.post("/api/v1/jobs/chat", json=CHAT)).json()["id"] for _ in range(3)]
        for _ in range(5):
            await b.post("/api/v1/jobs/chat", json=CHAT)
        first = (await a.get("/api/v1/jobs?limit=2")).json()
        rest = (await a.get(f"/api/v1/jobs?limit=2&before={first['next']}")).json()

        assert [each["id"] for page in (first, rest) for each in page["jobs"]] == mine[::-1]


async def test_a_pull_is_shared_inside_a_tenant_only(fleet: Keyed, redis_url: str) -> None:
    body = {"model": "big", "backend": "scripted"}
    may = {"permissions": ["models:write"]}
    a_and_b = fleet.caller("a", **may), fleet.caller("b", **may)
    async with stage(fleet.url, redis_url) as at, a_and_b[0] as a, a_and_b[1] as b:
        await at.announce()
        first, again, others = [
            (await each.post("/api/v1/jobs/pull", json=body)).json()["id"] for each in (a, a, b)
        ]

        assert first == again != others
        assert (await b.get(f"/api/v1/jobs/{others}")).json()["tenant"] == "b"


async def test_an_admin_sees_and_cancels_jobs_of_all_tenants(fleet: Keyed, redis_url: str) -> None:
    async with stage(fleet.url, redis_url) as at, fleet.caller("a") as a, fleet.admin as admin:
        await at.announce()
        job = (await a.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]

        assert [j["id"] for j in (await admin.get("/api/v1/jobs")).json()["jobs"]] == [job]
        assert (await admin.delete(f"/api/v1/jobs/{job}")).json()["status"] == "cancelled"


async def test_the_roster_is_for_every_key_and_backends_are_an_admins(fleet: Keyed) -> None:
    body = {"name": "box", "dsn": "openai://sk-sesame@h/v1"}
    async with fleet.caller("a") as a, fleet.admin as admin:
        for path in ("backends", "models", "queues", "workers"):
            assert (await a.get(f"/api/v1/{path}")).status_code == 200
        for refused in (
            await a.post("/api/v1/backends", json=body),
            await a.delete("/api/v1/backends/box"),
        ):
            problem(refused, 403, "not_allowed")
        proxied = await admin.post("/api/v1/backends", json=body, headers={"via": "1.1 p"})
        problem(proxied, 409, "not_supervised")


async def test_a_revoked_key_is_refused_by_every_shim_within_seconds(
    fleet: Keyed, redis_url: str
) -> None:
    with serving(redis_url, key_max_age_s=0.2) as other:
        told = fleet.issue("a")
        async with fleet.admin as admin, client(other, told["key"]) as a:
            assert (await a.get("/api/v1/jobs")).status_code == 200
            await admin.delete(f"/api/v1/keys/{told['id']}")
            problem(
                httpx.get(f"{fleet.url}/api/v1/jobs", headers=a.headers), 401, "not_authenticated"
            )
            async with asyncio.timeout(2):
                while (await a.get("/api/v1/jobs")).status_code == 200:
                    await asyncio.sleep(0.02)

            problem(await a.get("/api/v1/jobs"), 401, "not_authenticated")


async def test_an_open_stream_ends_when_its_key_is_revoked(fleet: Keyed, redis_url: str) -> None:
    told = fleet.issue("a")
    async with stage(fleet.url, redis_url) as at, client(fleet.url, told["key"]) as a:
        await at.announce()
        job = (await a.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]
        async with a.stream("GET", f"/api/v1/jobs/{job}/events") as response:
            events = sse(response)
            await anext(events)
            async with fleet.admin as admin, asyncio.timeout(5):
                await admin.delete(f"/api/v1/keys/{told['id']}")
                rest = [event["type"] async for event in events]

        assert set(rest) <= {"queued"}
        assert (await at.relay.records.get(job)).status == "queued"


async def test_a_stream_outlives_changes_of_its_key_but_not_the_loss_of_its_permission(
    fleet: Keyed,
) -> None:
    told = fleet.issue("a")
    path = f"/api/v1/keys/{told['id']}"
    async with client(fleet.url, told["key"]) as a, fleet.admin as admin, asyncio.timeout(10):
        async with a.stream("GET", "/api/v1/overview/events") as response:
            lines = response.aiter_lines()
            await anext(lines)
            assert (await admin.post(f"{path}/rotate", json={"overlap_s": 60})).status_code == 201
            assert (await admin.patch(path, json={"limit_jobs": 4})).is_success
            for _ in range(9):
                await anext(lines)
            assert (await admin.patch(path, json={"permissions": ["chat"]})).is_success
            async for _ in lines:
                pass

        problem(await a.get("/api/v1/overview"), 403, "not_allowed")


async def test_a_rotated_key_ends_with_its_overlap(fleet: Keyed) -> None:
    told = fleet.issue("a")
    async with client(fleet.url, told["key"]) as old, fleet.admin as admin:
        rotated = await admin.post(f"/api/v1/keys/{told['id']}/rotate", json={"overlap_s": 1})
        async with client(fleet.url, rotated.json()["key"]) as new, asyncio.timeout(5):
            assert (await old.get("/api/v1/caller")).is_success
            assert (await new.get("/api/v1/caller")).is_success
            while (await old.get("/api/v1/caller")).is_success:
                await asyncio.sleep(0.05)

            problem(await old.get("/api/v1/caller"), 401, "not_authenticated")
            assert (await new.get("/api/v1/caller")).json()["tenant"]["name"] == "a"


async def test_what_a_key_began_goes_on_with_the_key_in_its_place(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        keys = ApiKeys(relay.connection)
        await keys.issue(NewKey(tenant="boss", admin=True))
        old, revoked = [await keys.issue(NewKey(tenant="a")) for _ in range(2)]
        new = await keys.rotate(old.id, KeyRotation(overlap_s=0))
        await keys.rotate(revoked.id, KeyRotation())
        await keys.revoke(revoked.id)
        await asyncio.sleep(0.01)
        authenticator = Authenticator(keys, relay.connection, ShimSettings())
        await authenticator.refresh()

        assert await authenticator.is_in_force(old.id, "batches")
        assert not await authenticator.is_in_force(old.id, "models:admin")
        assert not await authenticator.is_in_force(revoked.id, "batches")
        await keys.revoke(new.id)
        await authenticator.refresh()
        assert not await authenticator.is_in_force(old.id, "batches")


async def test_the_last_use_of_a_key_is_told_and_costs_its_calls_nothing(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    told, idle = fleet.issue("a"), fleet.issue("b")

    async def uses() -> dict[str, float | None]:
        keys = (await admin.get("/api/v1/keys")).json()["keys"]
        return {key["id"]: key.get("last_used_at") for key in keys}

    async with client(fleet.url, told["key"]) as a, fleet.admin as admin, asyncio.timeout(10):
        assert (await a.get("/api/v1/caller")).is_success
        while (await uses())[told["id"]] is None:
            await asyncio.sleep(0.05)
        at = (await uses())[told["id"]]
        written = own_redis.say("HGET", redis_keys.KEYS_USED, told["id"])
        for _ in range(20):
            await a.get("/api/v1/caller")

        assert (await uses())[idle["id"]] is None
        assert at == pytest.approx(told["created_at"], abs=10)
        assert own_redis.say("HGET", redis_keys.KEYS_USED, told["id"]) == written


async def test_an_expired_key_is_refused(fleet: Keyed) -> None:
    async with fleet.caller("a", expires_in_s=0.3) as a:
        assert (await a.get("/api/v1/jobs")).status_code == 200
        async with asyncio.timeout(3):
            while (await a.get("/api/v1/jobs")).status_code == 200:
                await asyncio.sleep(0.02)

        problem(await a.get("/api/v1/jobs"), 401, "not_authenticated")


def socket(fleet: Keyed, job: str, **how: object) -> connect:
    url = fleet.url.replace("http", "ws", 1)
    return connect(f"{url}/api/v1/jobs/{job}/events", proxy=None, **how)  # type: ignore[arg-type]


async def test_a_socket_takes_the_key_as_a_header_or_as_a_subprotocol(
    fleet: Keyed, redis_url: str
) -> None:
    async with stage(fleet.url, redis_url) as at, fleet.admin as admin:
        await at.announce()
        job = (await admin.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]
        by_header = {"additional_headers": bearer(fleet.key)}
        by_protocol = {"subprotocols": ["fleet", fleet.key]}
        for how, spoken in ((by_header, None), (by_protocol, "fleet")):
            async with socket(fleet, job, **how) as line:
                assert json.loads(await line.recv())["type"] == "queued"
                assert line.subprotocol == spoken


@pytest.mark.parametrize("subprotocols", [None, ["fleet"], ["fleet", WRONG]])
async def test_a_socket_without_a_key_closes_with_4401(
    subprotocols: list[str] | None, fleet: Keyed
) -> None:
    async with socket(fleet, "0" * 32, subprotocols=subprotocols) as line:
        with pytest.raises(ConnectionClosed):
            await line.recv()

        assert line.close_code == 4401
        assert (line.close_reason or "").startswith("not_authenticated: ")


async def test_a_socket_closes_with_4401_when_its_key_is_revoked(
    fleet: Keyed, redis_url: str
) -> None:
    told = fleet.issue("a")
    async with stage(fleet.url, redis_url) as at, client(fleet.url, told["key"]) as a:
        await at.announce()
        job = (await a.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]
        async with socket(fleet, job, additional_headers=bearer(told["key"])) as line:
            await line.recv()
            async with fleet.admin as admin, asyncio.timeout(5):
                await admin.delete(f"/api/v1/keys/{told['id']}")
                with suppress(ConnectionClosed):
                    async for _ in line:
                        pass

            assert line.close_code == 4401


async def test_without_redis_no_client_is_authenticated(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    with keyed(redis.url, command_timeout_s=1) as fleet:
        redis.stop()
        async with fleet.admin as admin:
            async with asyncio.timeout(20):
                while (await admin.get("/api/v1/jobs")).status_code != 503:
                    pass

            problem(await admin.get("/api/v1/keys"), 503, "relay_unavailable")
            answer = httpx.get(f"{fleet.url}/api/v1/jobs", timeout=20)
            assert answer.status_code == 503
            assert httpx.get(f"{fleet.url}/healthz").status_code == 200


async def test_keys_that_redis_has_lost_open_no_door(fleet: Keyed, own_redis: RedisServer) -> None:
    own_redis.say("FLUSHALL")
    async with asyncio.timeout(5):
        while httpx.get(f"{fleet.url}/api/v1/jobs").status_code == 401:
            await asyncio.sleep(0.02)

    for headers in ({}, bearer(fleet.key)):
        told = httpx.get(f"{fleet.url}/api/v1/jobs", headers=headers)
        assert "lost the API keys" in problem(told, 503, "relay_unavailable")["detail"]


async def test_when_the_last_key_was_revoked_this_machine_is_let_in_again(fleet: Keyed) -> None:
    async with fleet.admin as admin:
        (only,) = (await admin.get("/api/v1/keys")).json()["keys"]
        await admin.delete(f"/api/v1/keys/{only['id']}")

    assert httpx.get(f"{fleet.url}/api/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"x-forwarded-for": "127.0.0.1"}, {"host": "evil.example"}, {"forwarded": "for=::1"}],
)
async def test_without_keys_only_this_machine_is_served(headers: dict[str, str], shim: str) -> None:
    assert httpx.get(f"{shim}/api/v1/jobs", headers=bearer("sk-anything")).status_code == 200
    problem(httpx.get(f"{shim}/api/v1/jobs", headers=headers), 403, "not_local")


async def test_on_another_address_no_client_is_served_without_keys(redis_url: str) -> None:
    with serving(redis_url, host="0.0.0.0") as shim:
        body = {"tenant": "boss", "admin": True}
        answers = [httpx.get(f"{shim}/api/v1/jobs"), httpx.post(f"{shim}/api/v1/keys", json=body)]

        for answer in answers:
            assert "127.0.0.1" in problem(answer, 401, "not_authenticated")["detail"]


async def test_with_the_insecure_setting_it_serves_all_clients_until_there_is_a_key(
    redis_url: str,
) -> None:
    far = {"x-forwarded-for": "10.0.0.9"}
    body = {"tenant": "boss", "admin": True}
    with serving(redis_url, host="0.0.0.0", insecure=True, key_max_age_s=0.2) as shim:
        assert httpx.get(f"{shim}/api/v1/jobs", headers=far).status_code == 200
        problem(httpx.post(f"{shim}/api/v1/keys", json=body, headers=far), 403, "not_allowed")
        assert httpx.post(f"{shim}/api/v1/keys", json=body).status_code == 201

        problem(httpx.get(f"{shim}/api/v1/jobs", headers=far), 401, "not_authenticated")


async def test_a_call_costs_no_look_of_its_own(redis_url: str, own_redis: RedisServer) -> None:
    assert own_redis.process is not None
    with keyed(redis_url, key_max_age_s=60) as fleet:
        async with fleet.admin as admin:
            await admin.get("/nothing")
            # Not by counting commands: a shim has others to send, more of them the slower it is.
            own_redis.process.send_signal(signal.SIGSTOP)
            try:
                statuses = {(await admin.get("/nothing")).status_code for _ in range(50)}
            finally:
                own_redis.process.send_signal(signal.SIGCONT)

            assert statuses == {404}


async def test_a_job_enqueued_before_there_were_keys_is_the_default_tenants(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        with keyed(redis_url) as fleet:
            async with fleet.caller("default") as heir, fleet.caller("a") as a:
                assert (await heir.get(f"/api/v1/jobs/{job}")).status_code == 200
                problem(await a.get(f"/api/v1/jobs/{job}"), 404, "job_not_found")
