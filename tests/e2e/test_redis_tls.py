"""All that a fleet says to Redis goes through TLS: commands, pub/sub, and Celery's broker.

The embedded server has no TLS, so something in front of it ends it, as stunnel would.

Subjects: relay/connection.py, relay/settings.py, workers/app.py.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from support.certificates import Authority
from support.processes import worker
from support.proxy import proxy_to
from support.redis_server import RedisServer
from support.relay import relay_on
from support.shims import ShimProcess

from contract.errors import InvalidSetting, RelayUnavailable
from relay.settings import RelaySettings

CHAT = {
    "model": "scripted-story:chunks=20",
    "backend": "scripted",
    "messages": [{"role": "user", "content": "tell"}],
}


def secure(port: int, authority: Authority, name: str = "client") -> str:
    file, key = authority.issue(name)
    files = f"ssl_ca_certs={authority.file}&ssl_certfile={file}&ssl_keyfile={key}"
    return f"rediss://127.0.0.1:{port}/0?{files}"


def control(url: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "inspect", "ping"],
        env={**os.environ, "FLEET_REDIS_URL": url, "FLEET_WORKER_BACKEND": "scripted"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return ran.stdout + ran.stderr


async def test_shims_workers_and_celerys_control_speak_tls_and_show_their_certificate(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with proxy_to(own_redis.port, authority.server()) as tunnel:
        url = secure(tunnel.port, authority)
        with worker(url, tmp_path) as one:
            async with relay_on(url) as relay:
                await one.ready(relay)
            at = await asyncio.to_thread(ShimProcess, url, tmp_path)
            try:
                async with httpx.AsyncClient(base_url=at.url, timeout=40) as http:
                    job = (await http.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]
                    told = (await http.get(f"/api/v1/jobs/{job}/events")).text
                answered = await asyncio.to_thread(control, url)
            finally:
                at.end()

    assert told.count("event: delta") >= 20
    assert "event: done" in told
    assert "pong" in answered


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url, _: url.partition("?")[0], "self-signed|unable to get|certificate"),
        (lambda url, _: url.replace("127.0.0.1", "localhost"), "Hostname mismatch|not valid for"),
        (lambda url, other: url.replace(*other), "TLS|ConnectionError|does not answer"),
    ],
    ids=["no authority", "another name", "a certificate of another authority"],
)
async def test_what_does_not_fit_is_refused_with_the_reason(
    own_redis: RedisServer, tmp_path: Path, change: object, reason: str
) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    stranger, key = Authority(tmp_path / "other").issue("client")
    async with proxy_to(own_redis.port, authority.server()) as tunnel:
        url = secure(tunnel.port, authority)
        mine = url.partition("&")[2]
        theirs = f"ssl_certfile={stranger}&ssl_keyfile={key}"
        async with relay_on(change(url, (mine, theirs))) as relay:
            with pytest.raises(RelayUnavailable, match=reason):
                await relay.connection.ping()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    url = SecretStr(f"rediss://h/0?ssl_ca_certs={tmp_path}/none.pem")
    with pytest.raises(InvalidSetting, match=r"ssl_ca_certs names no file .*none\.pem"):
        RelaySettings(redis_url=url)
