"""The doctor says what is wrong, and what to do about it."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from support.redis_server import RedisServer
from support.shim import CHAT, serving

from contract import redis_keys
from fleet.doctor import machine, services
from fleet.local.redis_server import free_port


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FLEET_REDIS_URL", "FLEET_URL", "FLEET_DATA_DIR", "FLEET_PORT", "OLLAMA_URL"):
        monkeypatch.delenv(variable, raising=False)


async def test_the_embedded_server_is_proved_by_starting_it() -> None:
    (found,) = await services.redis()

    assert found.state == "ok"
    assert "starts in" in found.detail


async def test_a_configured_redis_that_is_down_is_broken(
    monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    monkeypatch.setenv("FLEET_REDIS_URL", f"redis://:sesame@{nobody}")

    (found,) = await services.redis()

    assert found.state == "broken"
    assert "FLEET_REDIS_URL" in found.fix
    assert "sesame" not in str(found)


async def test_a_configured_redis_that_answers_is_well(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS_URL", redis_server.url)

    (found,) = await services.redis()

    assert (found.state, "clock agrees" in found.detail) == ("ok", True)


async def test_keys_that_another_program_has_overwritten_are_named(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS_URL", own_redis.url)
    own_redis.say("SET", redis_keys.KEYS, "garbage")
    own_redis.say("HSET", redis_keys.DAMAGED, redis_keys.LIVE, "1796063962.041 string")

    _, left, aside = await services.redis()

    assert (left.state, aside.state) == ("broken", "note")
    assert f"RENAME {redis_keys.KEYS} fleet:damaged:{redis_keys.KEYS}" in left.fix
    assert (redis_keys.LIVE in aside.what, "string" in aside.detail) == (True, True)


async def test_no_fleet_is_only_a_note(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    monkeypatch.setenv("FLEET_URL", f"http://{nobody}")

    (found,) = await services.shims()

    assert (found.state, "fleet up" in found.fix) == ("note", True)


async def test_an_address_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_URL", "http://xn--a:8700")

    (found,) = await services.shims()

    assert (found.state, found.detail) == ("broken", "FLEET_URL is not an address")


@pytest.mark.parametrize(("status", "body"), [(404, b"none"), (200, b""), (200, b"{}")])
async def test_another_program_in_the_shims_place_is_seen(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("FLEET_URL", f"http://127.0.0.1:{server.server_port}")
        (found,) = await services.shims()
        server.shutdown()

    assert (found.state, found.detail.startswith("another program")) == ("broken", True)


async def test_a_configured_backend_that_is_down_is_broken(
    monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    monkeypatch.setenv("OLLAMA_URL", f"http://{nobody}")

    (found,) = await services.backends()

    assert (found.what, found.state) == ("backend ollama", "broken")


async def test_a_backend_that_is_configured_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_BOX", "what://host")

    (found,) = await services.backends()

    assert (found.state, "LLM_BOX" in found.detail) == ("broken", True)


def test_a_data_folder_that_cannot_be_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "file" / "data"))

    assert machine.data_folder().state == "broken"


def test_a_taken_port_is_a_note_unless_the_fleet_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        monkeypatch.setenv("FLEET_PORT", str(number))
        found = machine.port(shim_answers=False)

        assert (found.state, found.detail.split()[0]) == ("note", str(number))
        assert machine.port(shim_answers=True).state == "ok"


def test_the_port_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    number = free_port()
    monkeypatch.setenv("FLEET_PORT", str(number))
    set_one = machine.port(shim_answers=False).detail
    monkeypatch.setenv("FLEET_PORT", "0")

    assert set_one == f"{number} on 127.0.0.1 is free for `fleet up`"
    assert "a free one" in machine.port(shim_answers=False).detail


def test_this_machine_runs_the_tests() -> None:
    assert machine.python().state == "ok"


async def test_it_tells_how_full_each_limit_is(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_redis.say("CONFIG", "SET", "maxmemory", str(2**40))
    with serving(own_redis.url, files_bytes=100_000) as shim:
        monkeypatch.setenv("FLEET_URL", shim)
        form = {"data": {"purpose": "batch"}, "files": {"file": ("f", b"x" * 90_000)}}
        httpx.post(f"{shim}/v1/files", timeout=20, **form)
        httpx.post(f"{shim}/api/v1/jobs/chat?enqueue_anyway=true", json={**CHAT, "backend": "box"})
        found = {each.what: each for each in await services.shims()}

    assert found["limit: memory of Redis"].state == "ok"
    assert "of 100,000" not in found["limit: files"].detail
    assert (found["limit: files"].state, "90%" in found["limit: files"].detail) == ("note", True)
    assert "FLEET_FILES_BYTES" in found["limit: files"].fix
    assert "files of tenant default" in " ".join(found)
    assert found["limit: jobs in queue box.chat"].detail == "1 jobs of 100,000 jobs (0%)"
