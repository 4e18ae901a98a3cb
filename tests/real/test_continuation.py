"""The joiner of a continued answer against the real llama-server: is a token lost, or said twice?

Greedy, with a model that never ends by itself, so that a cut may come after any token. What is
compared: the fragments before the cut and those of the rest, joined, with those of the answer that
was never cut. They must be equal to the letter, because this model's tokens are whole words, which
its tokenizer cuts from the beginning again exactly as they were said. With a vocabulary whose
tokens can be cut in another way, or with `seed` and a temperature, the rest may take another
course; even then it begins where the beginning ends.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.processes import worker
from support.relay import relay_on

from contract.chat import ChatRequest, Message
from contract.events import Delta, Done, Event, Resumed
from contract.result import Result, fold
from fleet.real.run_llama_server import LlamaServer, running_llama_server
from fleet.real.tiny_model import TinyShape, write_model
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import LLAMACPP
from workers.continuation import Continuation, EarlierOutput, plan
from workers.run import stream

pytestmark = pytest.mark.real
TOKENS = 48


@pytest.fixture(scope="module")
def endless(llama_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """Answers that end only where they must."""
    model = tmp_path_factory.mktemp("model") / "endless.gguf"
    write_model(model, TinyShape(mean_answer_tokens=1_000_000_000))
    with running_llama_server(model=model, slots=2) as server:
        yield server


def ask(**fields: Any) -> ChatRequest:
    message = Message(role="user", content="Tell me of the queue.")
    given: dict[str, Any] = {"temperature": 0, "max_tokens": TOKENS, **fields}
    return ChatRequest(model="tiny", messages=(message,), **given)


async def all_of(events: AsyncGenerator[Event, None]) -> list[Event]:
    async with aclosing(events) as some:
        return [event async for event in some]


async def rest_of(backend: OpenAI, request: ChatRequest, before: list[Event]) -> list[Event]:
    said = EarlierOutput()
    for event in before:
        said.add(event)  # type: ignore[arg-type]
    chosen = await plan(request, said, backend)
    return await all_of(Continuation(chosen, request, 2, partial(stream, backend=backend)).events())


def told(events: list[Event]) -> Result:
    return fold(events)  # type: ignore[arg-type]


def pieces(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, Delta) and event.content]


async def test_a_cut_after_every_token_loses_and_doubles_none(endless: LlamaServer) -> None:
    async with aclosing(OpenAI("llamacpp", endless.url, LLAMACPP)) as backend:
        whole = await all_of(backend.chat(ask()))
        for cut in range(1, TOKENS):
            before = pieces(whole)[:cut]
            rest = await rest_of(backend, ask(), before)

            assert isinstance(rest[0], Resumed)
            assert pieces(before + rest) == pieces(whole)
            assert told(before + rest).usage == _but_for_the_cache(told(whole), told(rest))


def _but_for_the_cache(whole: Result, rest: Result) -> Any:
    assert whole.usage is not None
    assert rest.usage is not None
    return whole.usage.model_copy(update={"cached_tokens": rest.usage.cached_tokens})


async def test_an_answer_cut_as_often_as_it_has_words_is_the_same(endless: LlamaServer) -> None:
    async with aclosing(OpenAI("llamacpp", endless.url, LLAMACPP)) as backend:
        whole = await all_of(backend.chat(ask(max_tokens=12)))
        log: list[Event] = pieces(whole)[:1]
        for _ in range(20):
            events = await rest_of(backend, ask(max_tokens=12), log)
            log += [event for event in events if not isinstance(event, Done)][:2]

        assert pieces([*log, *events]) == pieces(whole)


async def test_a_cut_in_white_space_doubles_none_of_it(endless: LlamaServer) -> None:
    # Every word of this model has its space before it: after a space of its own, the server
    # would begin the next word with a second one.
    async with aclosing(OpenAI("llamacpp", endless.url, LLAMACPP)) as backend:
        whole = await all_of(backend.chat(ask()))
        before = [*pieces(whole)[:20], Delta(content=" ")]
        rest = await rest_of(backend, ask(), before)

        assert told([*before, *rest]).content == told(whole).content


async def test_without_its_flags_the_server_repeats_the_beginning_and_nobody_hears_it(
    endless: LlamaServer,
) -> None:
    old = replace(LLAMACPP, prefill="native")
    async with aclosing(OpenAI("llamacpp", endless.url, old)) as backend:
        whole = await all_of(backend.chat(ask()))
        before = pieces(whole)[:10]
        echo = await all_of(backend.chat(_with_beginning(told(before).content)))
        rest = await rest_of(backend, ask(), before)

        assert told(echo).content.startswith(told(before).content)
        assert told(before + rest).content == told(whole).content


def _with_beginning(text: str) -> ChatRequest:
    request = ask(max_tokens=4)
    beginning = Message(role="assistant", content=text)
    return request.model_copy(update={"messages": (*request.messages, beginning)})


@pytest.mark.parametrize("tokens", [20, 150])
async def test_a_worker_that_dies_in_the_middle_costs_no_token(
    tokens: int, redis_url: str, tmp_path: Path, endless: LlamaServer
) -> None:
    env = {
        "LLM_LLAMACPP": endless.url.replace("http://", "llamacpp://"),
        "FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3",
    }  # fmt: skip
    request = ask(max_tokens=1500)
    with worker(redis_url, tmp_path, "llamacpp", **env) as first:
        async with relay_on(redis_url) as relay:
            await first.ready(relay)
            job = (await relay.queue.enqueue(request, queue="llamacpp.chat"))[0].id
            whole = fold(frame.event for frame in await relay.frames(job))
            job = (await relay.queue.enqueue(request, queue="llamacpp.chat"))[0].id
            seen = 0
            async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
                async for frames in pages:
                    seen += sum(frame.type == "delta" for frame in frames)
                    if seen >= tokens:
                        break
            first.send(signal.SIGKILL)
            with worker(redis_url, tmp_path, "llamacpp", **env):
                async with asyncio.timeout(30):
                    frames = await relay.frames(job)
            continued = fold(frame.event for frame in frames)

            assert [frame.type for frame in frames].count("resumed") == 1
            assert continued.content == whole.content
            assert continued.usage is not None
            assert whole.usage is not None
            assert continued.usage.completion_tokens == whole.usage.completion_tokens == 1500
