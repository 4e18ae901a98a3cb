"""A damaged job that waits for others, or is waited for, keeps no other job waiting.

Subjects: relay/parents.py.
"""

import logging
from typing import Any

import pytest
from support.relay import QUEUE, Relay, chat, relay_on, words

from contract import redis_keys

GARBAGE = (
    b"\xff\xfe{",
    b"",
    b"nan",
    b"1e999",
    b"9" * 400,
    b"[" * 5000,
    b"{}",
    b"[]",
    b"a b",
    b"null",
)

FIELDS = (
    "request", "queue", "status", "after", "after_any", "done", "not_before", "deadline_at", "v",
    "target", "facts", "id", "tenant",
)  # fmt: skip


async def child_of(relay: Relay, parent: str) -> str:
    record, _ = await relay.queue.enqueue(chat(after=[parent]), queue=QUEUE)
    return record.id


async def run_next(relay: Relay) -> None:
    await relay.run(await relay.claim(), *words(1))


async def freed(relay: Relay, *damage: tuple[Any, ...]) -> bool:
    """Whether a second parent's child is freed, while such commands have damaged the first's."""
    parents = [await relay.enqueue() for _ in range(2)]
    children = [await child_of(relay, each) for each in parents]
    names = {
        "child": redis_keys.record(children[0]), "parent": redis_keys.record(parents[0]),
        "children": redis_keys.children(parents[0]),
    }  # fmt: skip
    for _ in parents:
        await run_next(relay)
    for command, key, *rest in damage:
        await relay.connection.command(command, names[key], *rest)
    for _ in range(3):
        await relay.reconciler.reconcile()
    key = redis_keys.record(children[1])
    return not await relay.connection.command("HEXISTS", key, "blocked")


@pytest.mark.parametrize("key", ["child", "parent", "children"])
@pytest.mark.parametrize(
    "write", [("RPUSH", "x"), ("SET", "x"), ("HSET", "x", "y"), ("SADD", "\\xff")]
)
async def test_a_key_of_another_type_keeps_no_others_waiting(
    redis_url: str, key: str, write: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        assert await freed(relay, ("DEL", key), (write[0], key, *write[1:]))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", GARBAGE)
async def test_a_field_of_a_child_keeps_no_others_waiting(
    redis_url: str, field: str, value: bytes
) -> None:
    async with relay_on(redis_url) as relay:
        assert await freed(relay, ("HSET", "child", field, value))
