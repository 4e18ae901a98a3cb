"""Whatever stands in a queue is a message that Celery can run, or is set aside with its bytes."""

import base64
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as some
from kombu import Connection

from contract import redis_keys
from relay.tickets import ticket
from workers.celery_pool.message_check import UnreadableMessage, read_message, replacement

QUEUE = "scripted.chat"
CHANNEL = Connection("memory://").channel()
PLACES = (
    ("headers",), ("properties",), ("body",), ("content-type",), ("content-encoding",),
    ("headers", "task"), ("headers", "id"), ("headers", "eta"), ("headers", "expires"),
    ("headers", "retries"), ("headers", "timelimit"), ("headers", "compression"),
    ("properties", "delivery_tag"), ("properties", "delivery_info"),
    ("properties", "body_encoding"),
)  # fmt: skip
values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.text(max_size=8), inner, max_size=3)
        | some.fixed_dictionaries(
            {
                "__type__": some.sampled_from(["uuid", "datetime", "decimal", "date", "bytes"]),
                "__value__": inner,
            }
        )
    ),
    max_leaves=6,
)


def outcome(item: bytes) -> dict[str, Any]:
    """What is delivered for an entry."""
    try:
        return read_message(item, QUEUE, CHANNEL)
    except UnreadableMessage as error:
        return replacement(item, QUEUE, error)


def runs(raw: dict[str, Any]) -> bool:
    """Whether Celery finds in it a task, an id and arguments."""
    body = CHANNEL.Message(raw, channel=CHANNEL, accept={"application/json"}).payload
    args, kwargs = (body["args"], body["kwargs"]) if isinstance(body, dict) else body[:2]
    headers = raw.get("headers") or body
    return bool(headers["task"] and headers["id"]) and isinstance(args, list) and kwargs is not None


@given(some.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
@example(b"\xff")
@example(b"[" * 100_000)
@example(b'{"__type__": "decimal", "__value__": "x"}')
def test_what_is_no_envelope_is_set_aside_with_its_bytes(item: bytes) -> None:
    raw = outcome(item)
    kept = json.loads(base64.b64decode(raw["body"]))[1]

    assert raw["headers"]["task"] == redis_keys.UNREADABLE_TASK
    assert (base64.b64decode(kept["data"]), kept["size_bytes"]) == (item[:65536], len(item))


@given(some.sampled_from(PLACES), values)
def test_an_envelope_with_anything_anywhere_runs_or_is_set_aside(
    place: tuple[str, ...], value: object
) -> None:
    raw = json.loads(ticket(QUEUE))
    *path, last = place
    target = raw[path[0]] if path else raw
    target[last] = value
    delivered = outcome(json.dumps(raw).encode())

    assert runs(delivered)
    assert delivered["properties"]["delivery_info"]["routing_key"] == QUEUE


@given(some.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_an_envelope_with_any_body_runs_or_is_set_aside(body: bytes) -> None:
    raw = json.loads(ticket(QUEUE)) | {"body": base64.b64encode(body).decode()}

    assert runs(outcome(json.dumps(raw).encode()))
