"""Alive, ready, and the responses while Redis is unavailable."""

import asyncio
import signal

import httpx
import pytest
from support.redis_server import RedisServer
from support.shim import CHAT, problem, serving, stage


async def test_it_is_ready_when_redis_answers_and_asks_for_workers_if_told(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        before = problem(await at.http.get("/readyz?workers=1"), 503, "no_worker")
        alone = (await at.http.get("/readyz")).json()
        live = (await at.http.get("/livez")).json()
        await at.announce()
        ready = (await at.http.get("/readyz?workers=1")).json()

        assert before["checks"] == {"redis": "ok", "workers": "0 live, 1 expected"}
        assert (alone["status"], alone["workers"], live) == ("ready", 0, {"status": "alive"})
        assert ready == {
            "status": "ready",
            "checks": {"redis": "ok", "workers": "ok"},
            "workers": 1,
        }


async def test_it_waits_for_as_many_workers_as_are_expected(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await at.http.get("/readyz", params={"workers": 2})

        assert problem(answer, 503, "no_worker")["checks"]["workers"] == "1 live, 2 expected"


@pytest.fixture
def lost(own_redis: RedisServer) -> str:
    """A server that has stopped, at an address where no process listens."""
    own_redis.stop()
    return own_redis.url


async def test_without_redis_it_is_alive_but_reports_not_ready(lost: str) -> None:
    job = f"/api/v1/jobs/{'0' * 32}"
    with serving(lost) as shim:
        async with httpx.AsyncClient(base_url=shim, timeout=20) as http:
            assert (await http.get("/healthz")).json() == {"status": "alive"}
            answers = await asyncio.gather(
                http.get("/readyz"),
                http.post("/api/v1/jobs/chat", json=CHAT),
                http.get(f"{job}/events"),
            )

    for answer in answers:
        assert problem(answer, 503, "relay_unavailable")["retryable"] is True
        assert answer.headers["retry-after"] == "2"
    assert answers[0].json()["checks"]["redis"] != "ok"


async def test_probes_and_scrapers_are_answered_soon_while_redis_is_frozen(
    own_redis: RedisServer,
) -> None:
    with serving(own_redis.url) as shim:
        # A shim asks Redis again before it gives up, which takes ten seconds.
        async with httpx.AsyncClient(base_url=shim, timeout=5) as http:
            assert own_redis.process is not None
            assert (await http.get("/readyz")).status_code == 200
            own_redis.process.send_signal(signal.SIGSTOP)
            try:
                frozen, scale, metrics = await asyncio.gather(
                    *(http.get(path) for path in ("/readyz", "/api/v1/scale", "/metrics"))
                )
            finally:
                own_redis.process.send_signal(signal.SIGCONT)
            again = await http.get("/readyz")

    told = problem(frozen, 503, "relay_unavailable")
    assert "2 s" in told["checks"]["redis"]
    assert "2 s" in problem(scale, 503, "relay_unavailable")["detail"]
    assert (metrics.status_code, "llmfleet_redis_up 0.0" in metrics.text) == (200, True)
    assert again.status_code == 200
