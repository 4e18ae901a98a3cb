"""One model in the worker's memory: loading, use by one job at a time, unloading.

The library is a parrot; the real ones are in tests/real/test_inprocess_*.
"""

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from support.in_process import answer, ask, embed, events_of

from contract.chat import ChatRequest
from contract.errors import (
    BackendError,
    NotSupported,
    ServerFault,
)
from contract.events import Delta, Done, Phase, Usage
from contract.roster import ModelReport
from workers.backend_registry import build
from workers.backends.dsn import DsnError, parse
from workers.backends.in_process.adapter import InMemory
from workers.backends.in_process.chat_template import TemplatedChat
from workers.backends.in_process.thread_stream import ThreadStream
from workers.backends.in_process.tool_parser import GeneratedItem, GenerationEnd, GenerationStart


class Parrot:
    """Repeats the last message, word by word."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name
        log.append(f"load {name}")

    def chat(
        self, request: ChatRequest, chat: TemplatedChat, feed: ThreadStream[GeneratedItem]
    ) -> None:
        feed.put(GenerationStart(thinks=False))
        text = chat.messages[-1]["content"]
        if text == "break":
            raise ServerFault("it broke")
        for word in text.split():
            if not feed.put(f"{word} "):
                return
        feed.put(GenerationEnd("stop", Usage(completion_tokens=len(text.split()))))

    def embed(
        self, texts: Sequence[str], first: int, *, truncate: bool
    ) -> tuple[list[list[float]], int]:
        return [[float(first + at), 3.0, 4.0] for at in range(len(texts))], len(texts)

    def close(self) -> None:
        self.log.append(f"close {self.name}")


class Parrots:
    """A library of parrots; `may_load` holds a load up."""

    version = "parrot 1"
    continues = True
    grants = frozenset()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: list[str] = []
        self.may_load = threading.Event()
        self.may_load.set()

    def find(self) -> Mapping[str, Path]:
        return {"tiny": self.path, "other": self.path}

    def describe(self, name: str, path: Path) -> ModelReport:
        return ModelReport(name=name, traits=("chat", "embed"))

    def load(self, path: Path, *, embeds: bool) -> Parrot:
        self.may_load.wait(10)
        return Parrot(self.log, "embed" if embeds else "chat")


class Landlord:
    """A residence that grants everything and keeps the book."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.leave: Callable[[], None] = lambda: None

    async def claim(self, model: str, leave: Callable[[], None]) -> None:
        self.log.append(f"claim {model}")
        self.leave = leave

    async def release(self, model: str) -> None:
        self.log.append(f"release {model}")


@pytest.fixture
def parrots(tmp_path: Path) -> Parrots:
    return Parrots(tmp_path)


def backend_of(parrots: Parrots) -> aclosing[InMemory]:
    return aclosing(InMemory("box", parrots))


async def test_the_first_job_loads_and_the_next_does_not(parrots: Parrots) -> None:
    async with backend_of(parrots) as backend:
        first = await events_of(backend, ask("one two"))
        second = await events_of(backend, ask("one two"))

    words = [Delta(content="one "), Delta(content="two ")]
    assert first[:3] == [Phase(phase="loading"), *words]
    assert second[:2] == words
    assert parrots.log == ["load chat", "close chat"]


async def test_nothing_is_loaded_before_the_first_job(parrots: Parrots) -> None:
    async with backend_of(parrots) as backend:
        assert await backend.check() == "parrot 1"
        assert [report.warm for report in await backend.models()] == [False, False]

    assert parrots.log == []


async def test_a_model_is_loaded_for_one_thing_at_a_time(parrots: Parrots) -> None:
    async with backend_of(parrots) as backend:
        await answer(backend, ask("a"))
        rows, done = await embed(backend, *["a"] * 40)

    assert [row[0] for row in rows] == list(range(40))
    assert done.usage.prompt_tokens == 40
    assert parrots.log == ["load chat", "close chat", "load embed", "close embed"]


async def test_a_vector_cut_short_gets_its_length_back(parrots: Parrots) -> None:
    async with backend_of(parrots) as backend:
        rows, _ = await embed(backend, "a", dimensions=2)

    assert rows == [[0.0, 1.0]]


async def test_after_a_failed_job_the_next_one_uses_the_model(parrots: Parrots) -> None:
    async with backend_of(parrots) as backend:
        with pytest.raises(BackendError):
            await answer(backend, ask("break"))
        text, _ = await answer(backend, ask("on"))

    assert text == "on "
    assert parrots.log == ["load chat", "close chat"]


async def test_a_model_stays_loaded_if_its_job_is_cancelled_during_the_load(
    parrots: Parrots,
) -> None:
    # ollama #7408, LocalAI #10719: an aborted load begins anew, or leaks what it had loaded.
    parrots.may_load.clear()
    async with backend_of(parrots) as backend:
        stream = backend.chat(ask("a"))
        await anext(stream)
        loading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.01)
        loading.cancel()
        parrots.may_load.set()
        await asyncio.wait({loading})
        events = await events_of(backend, ask("b"))

    assert loading.cancelled()
    assert events[0] == Delta(content="b ")
    assert parrots.log == ["load chat", "close chat"]


async def test_a_model_is_claimed_before_it_is_loaded_and_released_after(parrots: Parrots) -> None:
    landlord = Landlord()
    async with backend_of(parrots) as backend:
        backend.use_model_lease(landlord)
        await answer(backend, ask("a"))
        await answer(backend, ask("a", model="other"))

    assert landlord.log == ["claim tiny", "release tiny", "claim other", "release other"]


async def test_a_model_is_unloaded_for_another_worker_after_its_job(
    parrots: Parrots,
) -> None:
    # LM Studio #671, #1796, llama.cpp #21678, llama-swap #588: evicted while generating.
    landlord = Landlord()
    async with backend_of(parrots) as backend:
        backend.use_model_lease(landlord)
        stream = backend.chat(ask("a b c"))
        first = [await anext(stream), await anext(stream)]
        landlord.leave()
        rest = [event async for event in stream]
        after = list(landlord.log)

    assert [*first, *rest][-1] == Done(
        usage=Usage(completion_tokens=3),
        timings=rest[-1].timings,  # type: ignore[union-attr]
    )
    assert after == ["claim tiny", "release tiny"]


async def test_an_idle_model_is_unloaded_for_another_worker_at_once(parrots: Parrots) -> None:
    landlord = Landlord()
    async with backend_of(parrots) as backend:
        backend.use_model_lease(landlord)
        await answer(backend, ask("a"))
        landlord.leave()
        async with asyncio.timeout(5):
            while "release tiny" not in landlord.log:
                await asyncio.sleep(0)

        assert parrots.log == ["load chat", "close chat"]


@pytest.mark.parametrize(
    ("type", "package", "words"),
    [("llama", "llama_cpp", "pip install 'llama-cpp-python"),
     ("openvino", "openvino_genai", "pip install openvino-genai openvino-tokenizers")],
)  # fmt: skip
def test_a_missing_library_is_named_with_what_to_type(type: str, package: str, words: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")

    with pytest.raises(NotSupported, match=words):
        build(parse("LLM_BOX", f"{type}:///models"))


def test_a_path_must_be_named() -> None:
    with pytest.raises(DsnError, match="GGUF file or a folder"):
        parse("LLM_BOX", "llama://")
    with pytest.raises(DsnError, match="exported model"):
        parse("LLM_BOX", "openvino:///")
