"""Every adapter fails alike, over a real socket: errors, silence, cancel.

Subjects: workers/backends/protocols.py.
"""

import asyncio
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest
from support.backends import (
    ALL,
    NETWORKED,
    OPENAI_SHAPED,
    against_server,
    chat_request,
    folded,
    make,
)

from contract.errors import (
    AuthenticationRefused,
    BackendBusy,
    BackendError,
    BackendStalled,
    BackendUnreachable,
    BadEndpoint,
    ConnectionDropped,
    ContextExceeded,
    ModelLoading,
    ModelMissing,
    ServerFault,
    TruncatedStream,
)
from contract.result import fold
from workers.backends.http.client import BackendClient
from workers.scripted.server import ScriptedServer, serve

every = pytest.mark.parametrize("type", ALL)
networked = pytest.mark.parametrize("type", NETWORKED)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("html", BadEndpoint),
        ("body", ServerFault),
        ("busy", BackendBusy),
        ("loading", ModelLoading),
        ("missing", ModelMissing),
        ("context", ContextExceeded),
        ("auth", AuthenticationRefused),
        ("crash", ServerFault),
        ("drop", BackendUnreachable),
    ],
)
@every
async def test_an_error_before_the_first_word_has_its_class(
    type: str, fault: str, error: type[BackendError]
) -> None:
    async with against_server(type) as (backend, _):
        with pytest.raises(error):
            await folded(backend.chat(chat_request(f"scripted-story:fail={fault}")))


@every
async def test_a_busy_backend_names_its_wait(type: str) -> None:
    async with against_server(type) as (backend, _):
        with pytest.raises(BackendBusy) as caught:
            await folded(backend.chat(chat_request("scripted-story:fail=busy")))

    assert caught.value.retry_after_s == 2.0


async def words_before(error: type[BackendError], stream: Any) -> str:
    events: list[Any] = []

    async def listen() -> None:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - they are wanted although it raises

    with pytest.raises(error):
        await listen()
    return fold(events).content


@pytest.mark.parametrize("fault", ["after", "cut", "reset"])
@every
async def test_an_answer_without_its_last_marker_is_a_failure(type: str, fault: str) -> None:
    async with against_server(type) as (backend, _):
        stream = backend.chat(chat_request(f"scripted-story:fail={fault}:3,rate=500"))
        words = await words_before(TruncatedStream, stream)

    assert words == "This is the"


@every
async def test_an_error_in_the_middle_is_raised_after_the_words_before_it(type: str) -> None:
    async with against_server(type) as (backend, _):
        words = await words_before(
            ServerFault, backend.chat(chat_request("scripted-story:fail=error:3"))
        )

    assert words == "This is the"


STYLES = ["llamacpp", "old", "vllm", "lmstudio", "openai", "swap", "proxy"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("type", OPENAI_SHAPED)
async def test_an_error_in_the_middle_is_seen_in_every_shape(type: str, style: str) -> None:
    async with against_server(type) as (backend, _):
        stream = backend.chat(chat_request(f"scripted-story:fail=error:1,style={style}"))
        with pytest.raises(ServerFault, match="scripted error in the middle"):
            await folded(stream)


async def test_an_error_that_the_server_swallowed_is_a_failure_all_the_same() -> None:
    async with against_server("generic") as (backend, _):
        with pytest.raises(TruncatedStream):
            await folded(backend.chat(chat_request("scripted-story:fail=error:1,style=ollama")))


@every
async def test_a_backend_that_falls_silent_is_given_up(type: str) -> None:
    async with against_server(type, idle_s=0.05) as (backend, _):
        words = await words_before(
            BackendStalled, backend.chat(chat_request("scripted-story:fail=stall:2"))
        )

    assert words == "This is"


@networked
async def test_no_silence_is_too_long_before_the_first_word(type: str) -> None:
    # ollama #7408: a client's timeout aborts the load, and its retries begin anew.
    async with against_server(type, idle_s=0.05) as (backend, _):
        result = await folded(backend.chat(chat_request("scripted-echo:first=0.3", "hi")))

    assert result.content == "hi"


@networked
async def test_closing_the_stream_closes_the_socket(type: str) -> None:
    async with against_server(type) as (backend, server):
        async with aclosing(backend.chat(chat_request("scripted-story:rate=20"))) as events:
            await anext(events)
            assert server.seen.open == 1
        await server.seen.until(lambda seen: seen.aborted == 1, limit_s=1.0)

        assert server.seen.open == 0


@networked
async def test_cancelling_the_task_closes_the_socket(type: str) -> None:
    async with against_server(type) as (backend, server):
        task = asyncio.create_task(
            folded(backend.chat(chat_request("scripted-story:fail=stall:1")))
        )
        await server.seen.until(lambda seen: seen.open == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.seen.until(lambda seen: seen.aborted == 1, limit_s=1.0)


@networked
async def test_a_cancel_before_the_first_word_closes_the_socket(type: str) -> None:
    async with against_server(type) as (backend, server):
        task = asyncio.create_task(folded(backend.chat(chat_request("scripted-story:first=60"))))
        await server.seen.until(lambda seen: seen.open == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.seen.until(lambda seen: seen.aborted == 1, limit_s=1.0)


@networked
async def test_a_prompt_that_drops_a_connection_that_was_used_is_not_sent_again(
    type: str,
) -> None:
    async with against_server(type) as (backend, server):
        for _ in range(2):  # llama-server closes a connection after a stream, others keep it
            await folded(backend.chat(chat_request("scripted-echo", "hi")))
        before = _asked(server)
        with pytest.raises(ConnectionDropped):
            await folded(backend.chat(chat_request("scripted-echo:fail=drop,times=1", "hi")))

        assert _asked(server) - before == 1


@pytest.mark.parametrize("type", sorted({*NETWORKED} - {"llamaswap"}))  # that looks first
async def test_a_prompt_that_drops_a_connection_never_used_before_is_not_sent_again(
    type: str,
) -> None:
    async with against_server(type) as (backend, server):
        with pytest.raises(BackendUnreachable):
            await folded(backend.chat(chat_request("scripted-echo:fail=drop,times=1", "hi")))

        assert _asked(server) == 1


def _asked(server: ScriptedServer) -> int:
    """Requests, beside looks whether the model is loaded."""
    return sum(n for path, n in server.seen.requests.items() if not path.endswith("/models"))


async def test_bodies_are_read_from_aiohttp_directly() -> None:
    async with serve() as server:
        client = BackendClient(server.url)
        async with client.open("GET", "/health") as answer:
            assert isinstance(answer._incoming.read_packet.__self__, aiohttp.StreamReader)  # type: ignore[attr-defined]
        await client.aclose()


@networked
async def test_a_backend_that_is_not_there_is_unreachable(type: str) -> None:
    backend = make(type, "http://127.0.0.1:1")
    with pytest.raises(BackendUnreachable, match=r"127\.0\.0\.1:1"):
        await backend.check()
    await backend.aclose()
