"""Queues over HTTP: paused, resumed, given run windows by admins; the reason is told to all.

Subjects: api_shim/native/queues.py, contract/requests.py, fleet/cli/commands/options.py.
"""

import time
from datetime import UTC, datetime

import pytest
from support.keys import bearer, issued
from support.redis_server import RedisServer
from support.relay import QUEUE
from support.shim import CHAT, problem, serving, stage

from contract.requests import unix_seconds
from fleet.cli.commands.options import next_time

PAUSE, RESUME = f"/api/v1/queues/{QUEUE}/pause", f"/api/v1/queues/{QUEUE}/resume"
WINDOWS = f"/api/v1/queues/{QUEUE}/windows"


async def test_a_paused_queue_says_so_to_all_who_wait_and_wants_no_worker(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        paused = await at.http.post(PAUSE, json={"reason": "new ☃"})
        accepted = await at.http.post("/api/v1/jobs/chat", json=CHAT)
        job = accepted.json()["id"]
        view = (await at.http.get(f"/api/v1/jobs/{job}")).json()
        async with at.events(job, headers={"accept": "application/x-ndjson"}) as stream:
            lines = stream.aiter_lines()
            told = [await anext(lines), await anext(lines)]
        listed = (await at.http.get("/api/v1/queues")).json()["queues"]
        scale = (await at.http.get("/api/v1/scale", params={"queue": QUEUE})).json()
        overview = (await at.http.get("/api/v1/overview")).json()

        assert paused.json()["paused"]["by"] == "admin"
        assert accepted.headers["x-fleet-queue-reason"] == "the queue is paused (new ?)"
        assert view["reason"] == "the queue is paused (new ☃)"
        assert "the queue is paused (new ☃)" in told[1]
        assert [q["paused"]["reason"] for q in listed if q["name"] == QUEUE] == ["new ☃"]
        assert (scale["workers"], scale["waiting"], scale["queues"][0]["paused"]) == (0, 1, True)
        assert [each["code"] for each in overview["concerns"]] == ["paused"]
        assert await at.relay.start_next(QUEUE, "w1") is None

        resumed = await at.http.post(RESUME)
        assert resumed.json() == {"name": QUEUE, "paused": None, "windows": []}
        assert (await at.relay.claim()).record.id == job


async def test_the_wait_includes_a_pause_whose_end_is_known(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        await at.relay.enqueue()
        await at.relay.run(await at.relay.claim())
        await at.http.post(PAUSE, json={"until": time.time() + 3600})
        job = (await at.http.post("/api/v1/jobs/chat", json=CHAT)).json()
        view = (await at.http.get(f"/api/v1/jobs/{job['id']}")).json()

    assert 3590 < view["eta_s"] < 3720
    assert view["reason"].startswith("the queue is paused until 20")


async def test_a_model_of_two_backends_goes_to_the_one_that_runs(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("a")
        await at.announce("b")
        await at.http.post("/api/v1/queues/a.chat/pause")
        for _ in range(3):
            await at.relay.enqueue()
        accepted = [(await at.http.post("/api/v1/jobs/chat", json=CHAT)).json() for _ in range(3)]

    assert {each["queue"] for each in accepted} == {"b.chat"}


async def test_run_windows_are_set_shown_and_removed(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        other = datetime.fromtimestamp(time.time() + 3 * 86400, UTC)
        day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][other.weekday()]
        set_ = await at.http.put(WINDOWS, json={"windows": [f"{day}  12:00-13:00 Europe/Berlin"]})
        job = (await at.http.post("/api/v1/jobs/chat", json=CHAT)).json()
        listed = (await at.http.get("/api/v1/queues")).json()["queues"]
        gone = await at.http.put(WINDOWS, json={"windows": []})

        assert set_.json()["paused"]["by"] == "windows"
        assert set_.json()["windows"] == [f"{day} 12:00-13:00 Europe/Berlin"]
        assert job["reason"].startswith("the queue is outside its run windows until ")
        assert [q["windows"] for q in listed if q["name"] == QUEUE] == [set_.json()["windows"]]
        assert gone.json() == {"name": QUEUE, "paused": None, "windows": []}
        assert (await at.relay.claim()).record.id == job["id"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "told"),
    [
        ("POST", "/api/v1/queues/nobody.chat/pause", None, 404, "unknown_queue", "nobody.chat"),
        ("POST", "/api/v1/queues/nobody.chat/resume", None, 404, "unknown_queue", "nobody.chat"),
        ("POST", "/api/v1/queues/no queue/pause", None, 422, "invalid_request", "queue"),
        ("POST", PAUSE, {"until": 1}, 422, "invalid_request", "until"),
        ("POST", PAUSE, {"until": "2026-11-29T22:00:00"}, 422, "invalid_request", "offset"),
        ("POST", PAUSE, {"until": "tomorrow"}, 422, "invalid_request", "RFC 3339"),
        ("POST", PAUSE, {"until": True}, 422, "invalid_request", "RFC 3339"),
        ("POST", PAUSE, {"until": "9999-12-31T00:00:00Z"}, 422, "invalid_request", "a year"),
        ("POST", PAUSE, {"reason": "x" * 201}, 422, "invalid_request", "200"),
        ("POST", PAUSE, {"reason": "red \x1b[31m"}, 422, "invalid_request", "reason"),
        ("POST", PAUSE, {"untli": 1}, 422, "invalid_request", "untli"),
        ("POST", PAUSE, [], 422, "invalid_request", ""),
        ("PUT", WINDOWS, {"windows": ["22-06 UTC"]}, 422, "invalid_request", "22:00-06:00"),
        ("PUT", WINDOWS, {"windows": "22:00-06:00 UTC"}, 422, "invalid_request", "windows"),
        ("PUT", WINDOWS, {"windows": ["22:00-06:00 UTC"] * 21}, 422, "invalid_request", "20"),
        ("PUT", WINDOWS, {}, 422, "invalid_request", "windows"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_a_remedy(  # noqa: PLR0917
    shim: str, redis_url: str, method: str, path: str, body: object, status: int, code: str,
    told: str,
) -> None:  # fmt: skip
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await at.http.request(method, path, json=body)

        document = problem(answer, status, code)
        assert told in str(document)
        assert await at.relay.connection.command("KEYS", "fleet:q:*:schedule") == []


async def test_only_an_admin_pauses_a_queue(own_redis: RedisServer) -> None:
    with serving(own_redis.url, key_max_age_s=0.1) as shim:
        admin = bearer(issued(shim, {}, tenant="boss", admin=True)["key"])
        other = bearer(issued(shim, admin, tenant="research")["key"])
        async with stage(shim, own_redis.url) as at:
            await at.announce()
            for method, path in (("POST", PAUSE), ("POST", RESUME), ("PUT", WINDOWS)):
                body = {"windows": []} if method == "PUT" else None
                refused = await at.http.request(method, path, json=body, headers=other)
                problem(refused, 403, "not_allowed")
            allowed = await at.http.post(PAUSE, headers=admin)

    assert allowed.status_code == 200


def test_times_are_read_in_all_their_forms() -> None:
    at = 1795986000.0

    assert unix_seconds("2026-11-29T22:00:00+01:00") == unix_seconds("2026-11-29T21:00:00Z") == at
    assert unix_seconds(at) == unix_seconds("1795986000") == unix_seconds(1795986000) == at
    now = datetime.fromisoformat("2026-11-29T21:59:00+01:00")
    assert next_time("22:00", now) == at
    assert next_time("21:59", now) == at - 60 + 86400
    assert next_time("9:05", now) == unix_seconds("2026-11-30T09:05:00+01:00")
    for text in ("25:00", "22:61", "", "2026-11-29", "-1", "nan", "1e400", "12:", "²²:00"):
        with pytest.raises(ValueError, match=r"time|offset"):
            next_time(text, now)


def test_the_next_time_by_this_machines_clock_is_right_after_the_night_of_a_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        before = datetime(2026, 10, 24, 23, 0)  # noqa: DTZ001 - in summer time
        assert next_time("22:00", before) == unix_seconds("2026-10-25T22:00:00+01:00")
        twice = datetime(2026, 10, 25, 2, 45)  # noqa: DTZ001 - for the first time
        assert next_time("02:30", twice) == unix_seconds("2026-10-25T02:30:00+01:00")
        again = datetime(2026, 10, 25, 2, 45, fold=1)  # noqa: DTZ001
        assert next_time("02:30", again) == unix_seconds("2026-10-26T02:30:00+01:00")
        skipped = datetime(2026, 3, 29, 1, 45)  # noqa: DTZ001
        assert next_time("02:30", skipped) == unix_seconds("2026-03-29T03:30:00+02:00")
    finally:
        monkeypatch.undo()
        time.tzset()
