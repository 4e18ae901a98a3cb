"""A key is revoked while its calls are open: streams, sockets, waits and batches of a real fleet.

Subjects: auth_middleware, batch_run
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from anthropic import Anthropic, APIStatusError
from ollama import Client as OllamaClient
from ollama import ResponseError as OllamaError
from openai import APIError, OpenAI
from support.batches import begun, echo, ended, lines, when
from support.keys import Keyed, bearer, client, keyed
from support.processes import worker
from support.redis_server import RedisServer
from support.shim import serving
from support.up import wait_until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api_shim.batch.batch_run import BatchRun
from api_shim.http.authentication import REVOKED

WITHIN_S = 3.0
LONG = "scripted-story:chunks=2000,rate=20"
TOLD = {"model": LONG, "messages": [{"role": "user", "content": "tell"}]}
OPENAI = ("/v1/chat/completions", {**TOLD, "stream": True})
STREAMS = {
    "openai": OPENAI,
    "anthropic": ("/v1/messages", {**TOLD, "stream": True, "max_tokens": 9000}),
    "ollama": ("/api/chat", {**TOLD, "stream": True}),
    "responses": ("/v1/responses", {"model": LONG, "input": "tell", "stream": True}),
}
ON_SCRIPTED = {"X-Fleet-Backend": "scripted"}
LAST_WORDS = ("[DONE]", '"done":true', "message_stop", "response.completed", '"type":"cancelled"')
WAITS = {
    "openai": ("/v1/chat/completions", TOLD, {}),
    "not direct": ("/v1/chat/completions", TOLD, {"X-Fleet-Priority": "standard"}),
    "ollama": ("/api/chat", {**TOLD, "stream": False}, {}),
    # Streams that have not begun when the key is revoked are refused like other waits.
    "openai stream": (OPENAI[0], {**OPENAI[1], "model": "scripted-story:first=60"}, {}),
    "anthropic stream": (
        "/v1/messages",
        {**TOLD, "model": "scripted-story:first=60", "stream": True, "max_tokens": 9},
        {},
    ),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keyed, str]]:
    """Two shims with the default age of keys, of which the second one's address is beside."""
    folder = tmp_path_factory.mktemp("revocation")
    settings: dict[str, Any] = {"data_dir": folder / "data", "key_max_age_s": 3.0}
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        first = stack.enter_context(keyed(redis.url, **settings, batch_window=4))
        second = stack.enter_context(serving(redis.url, **settings))
        stack.enter_context(worker(redis.url, folder, LLM_SCRIPTED="scripted://?slots=32"))
        with httpx.Client(base_url=first.url, headers=bearer(first.key)) as admin:
            wait_until(lambda: admin.get("/api/v1/models").json()["models"])
        yield first, second


async def test_nothing_of_a_revoked_key_is_open_three_seconds_later(
    fleet: tuple[Keyed, str],
) -> None:
    keyed, second = fleet
    told = keyed.issue("ann")
    async with client(keyed.url, told["key"]) as ann, AsyncExitStack() as stack:
        ann.headers.update(ON_SCRIPTED)
        job = (await ann.post("/api/v1/jobs/chat", json=TOLD)).json()["id"]
        streams = {
            name: await stack.enter_async_context(_stream(ann, *ask)) for name, ask in _asks(job)
        }
        url = f"{keyed.url.replace('http', 'ws', 1)}/api/v1/jobs/{job}/events"
        socket = await stack.enter_async_context(
            connect(url, proxy=None, additional_headers=bearer(told["key"]))
        )
        waits = {
            name: asyncio.create_task(ann.post(path, json=body, headers=headers))
            for name, (path, body, headers) in WAITS.items()
        }
        waits["wait_s"] = asyncio.create_task(ann.get(f"/api/v1/jobs/{job}?wait_s=60"))
        await _until(lambda: _running(keyed, "ann"), 1 + len(STREAMS) + len(WAITS))
        async with client(second, keyed.key) as admin:
            assert (await admin.delete(f"/api/v1/keys/{told['id']}")).is_success
        revoked_at = time.monotonic()
        rests = await asyncio.gather(*(_rest(each) for each in streams.values()))
        with suppress(ConnectionClosed):
            while True:
                await socket.recv()
        answers = dict(zip(waits, await asyncio.gather(*waits.values()), strict=True))
        took_s = time.monotonic() - revoked_at

    assert took_s < WITHIN_S
    assert socket.close_code == 4401
    told_why = dict(zip(streams, rests, strict=True))
    assert [name for name in STREAMS if REVOKED not in told_why[name]] == []
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(
        waits, 401
    )
    assert [word for rest in rests for word in LAST_WORDS if word in rest] == []


def anthropic_text(url: str, key: str) -> None:
    with (
        Anthropic(base_url=url, api_key=key, default_headers=ON_SCRIPTED) as client,
        client.messages.stream(
            model=LONG, max_tokens=9000, messages=[{"role": "user", "content": "tell"}]
        ) as stream,
    ):
        stream.get_final_message()


def openai_text(url: str, key: str) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key=key, default_headers=ON_SCRIPTED) as client:
        for _ in client.chat.completions.create(
            model=LONG, messages=[{"role": "user", "content": "tell"}], stream=True
        ):
            pass


def responses_text(url: str, key: str) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key=key, default_headers=ON_SCRIPTED) as client:
        for _ in client.responses.create(model=LONG, input="tell", stream=True):
            pass


def ollama_text(url: str, key: str) -> None:
    with OllamaClient(url, headers={**bearer(key), **ON_SCRIPTED}) as client:
        for _ in client.chat(LONG, [{"role": "user", "content": "tell"}], stream=True):
            pass


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (openai_text, APIError), (responses_text, APIError),
        (anthropic_text, APIStatusError), (ollama_text, OllamaError),
    ],
)  # fmt: skip
async def test_a_client_does_not_take_what_it_has_for_the_whole_answer(
    fleet: tuple[Keyed, str], ask: Callable[[str, str], None], error: type[Exception]
) -> None:
    keyed, _ = fleet
    told = keyed.issue("dan")
    asking = asyncio.create_task(asyncio.to_thread(ask, keyed.url, told["key"]))
    await _until(lambda: _running(keyed, "dan"), 1)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(revoke, keyed, told["id"])

    with pytest.raises(error, match=REVOKED):
        await asking


async def test_an_expired_key_ends_its_streams(fleet: tuple[Keyed, str]) -> None:
    keyed, _ = fleet
    told = keyed.issue("ann", expires_in_s=2)
    began_at = time.monotonic()
    async with client(keyed.url, told["key"]) as ann:
        ann.headers.update(ON_SCRIPTED)
        async with _stream(ann, "POST", *OPENAI) as stream:
            await _rest(stream)

    assert 1 < time.monotonic() - began_at < 2 + WITHIN_S


def test_a_batch_of_a_revoked_key_stops_and_says_why(fleet: tuple[Keyed, str]) -> None:
    keyed, _ = fleet
    told, other = keyed.issue("bob"), keyed.issue("bob")
    rows = [echo(1), echo(2), *(echo(n, LONG) for n in range(3, 20))]
    bob, still = (OpenAI(base_url=f"{keyed.url}/v1", api_key=key["key"]) for key in (told, other))
    with bob:
        batch = begun(bob, rows)
        when(bob, batch, completed=2)
    revoke(keyed, told["id"])
    revoked_at = time.monotonic()
    with still:
        last = ended(still, batch)
        took_s = time.monotonic() - revoked_at
        answered, refused = (lines(still, id) for id in (last.output_file_id, last.error_file_id))

    assert (last.status, took_s < WITHIN_S + 2) == ("failed", True)
    assert last.errors is not None
    assert [each.code for each in last.errors.data or ()] == ["key_revoked"]
    assert (len(answered), len(refused)) == (2, len(rows) - 2)
    assert {each["error"]["code"] for each in refused} == {"key_revoked"}
    assert _running(keyed, "bob") == 0


def test_a_batch_whose_rows_have_all_ended_when_its_key_is_revoked_is_completed(
    fleet: tuple[Keyed, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed, _ = fleet
    told, other = keyed.issue("cat"), keyed.issue("cat")

    async def nothing(_: BatchRun) -> bool:
        return False

    monkeypatch.setattr(BatchRun, "_collect_ended", nothing)
    cat, still = (OpenAI(base_url=f"{keyed.url}/v1", api_key=key["key"]) for key in (told, other))
    with cat:
        batch = begun(cat, [echo(1), echo(2)])
    wait_until(lambda: _count(keyed, "cat", "done") == 2)
    revoke(keyed, told["id"])
    with still:
        last = ended(still, batch)

    assert (last.status, last.errors) == ("completed", None)
    assert last.request_counts is not None
    assert (last.request_counts.completed, last.request_counts.failed) == (2, 0)


def revoke(keyed: Keyed, key_id: str) -> None:
    gone = httpx.delete(f"{keyed.url}/api/v1/keys/{key_id}", headers=bearer(keyed.key))
    assert gone.is_success


def _asks(job: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    events = f"/api/v1/jobs/{job}/events"
    yield "sse", ("GET", events)
    yield "ndjson", ("GET", events, None, {"accept": "application/x-ndjson"})
    yield "overview", ("GET", "/api/v1/overview/events")
    for name, (path, body) in STREAMS.items():
        yield name, ("POST", path, body)


@asynccontextmanager
async def _stream(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[AsyncIterator[bytes]]:
    """A stream that has begun."""
    async with http.stream(method, path, json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        pieces = response.aiter_bytes()
        await anext(pieces)
        yield pieces


async def _rest(pieces: AsyncIterator[bytes]) -> str:
    return b"".join([piece async for piece in pieces]).decode()


def _running(keyed: Keyed, tenant: str) -> int:
    return _count(keyed, tenant, "running")


def _count(keyed: Keyed, tenant: str, status: str) -> int:
    query = {"tenant": tenant, "status": status}
    answer = httpx.get(f"{keyed.url}/api/v1/jobs", params=query, headers=bearer(keyed.key))
    return len(answer.json()["jobs"])


async def _until(count: Callable[[], int], expected: int) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(count) < expected:
            await asyncio.sleep(0.05)
