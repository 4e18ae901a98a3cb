"""Helpers for backends with models in memory, and the check for their libraries."""

import importlib.util
import os
from typing import Any

import pytest

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest, unpack
from contract.events import Delta, Done, Event, Vectors
from workers.backends.in_process.adapter import InMemory


def needed(package: str) -> None:
    """Skip the module, or fail it if the libraries are required."""
    if importlib.util.find_spec(package) is not None:
        return
    reason = (
        f"NO {package}, NOTHING IS PROVED of in-process models here:"
        " python -m fleet.real.inprocess test"
    )
    if os.environ.get("LLM_FLEET_INPROCESS") == "require":
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def ask(content: str = "Describe the queue.", **fields: Any) -> ChatRequest:
    fields = {"model": "tiny", "messages": (Message(role="user", content=content),), **fields}
    return ChatRequest(**fields)


async def events_of(backend: InMemory, request: ChatRequest) -> list[Event]:
    return [event async for event in backend.chat(request)]


async def answer(backend: InMemory, request: ChatRequest) -> tuple[str, Done]:
    *events, done = await events_of(backend, request)
    assert isinstance(done, Done)
    return "".join(e.content or "" for e in events if isinstance(e, Delta)), done


async def embed(backend: InMemory, *texts: str, **fields: Any) -> tuple[list[list[float]], Done]:
    request = EmbedRequest(**{"model": "tiny", "input": texts, **fields})
    *events, done = [event async for event in backend.embed(request)]
    assert isinstance(done, Done)
    blocks = [event for event in events if isinstance(event, Vectors)]
    return [row for block in blocks for row in unpack(block.data, block.dimension)], done
