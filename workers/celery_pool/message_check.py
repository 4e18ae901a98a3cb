"""Validation of a queue's entries before Celery reads them: a task message, or unreadable bytes."""

import base64
import json
from typing import Any, Final

from celery.utils.time import maybe_iso8601
from kombu.utils.json import loads

from contract import redis_keys
from contract.jobs import TASKS
from contract.wire import written
from relay.dead_letters import KEPT_BYTES
from relay.tickets import message

_KNOWN: Final = frozenset({redis_keys.TICKET_TASK, redis_keys.UNREADABLE_TASK, *TASKS})
_ACCEPTED: Final = frozenset({"application/json"})
_LONGEST_REASON: Final = 200


class UnreadableMessage(ValueError):
    """An entry that is not a task message; has the reason, and what is known of the task."""

    def __init__(self, reason: str, task: object = None, id: object = None) -> None:
        """`task` and `id` are those of the message, if it has them; other types count as None."""
        super().__init__(written(reason))
        self.reason = reason.encode("utf-8", "backslashreplace").decode()[:_LONGEST_REASON]
        self.kind = TASKS.get(task) if isinstance(task, str) else None
        self.task_id = id if isinstance(id, str) and id and self.kind else None


def read_message(item: bytes, queue: str, channel: Any) -> dict[str, Any]:
    """The message of an entry of `queue`, as kombu delivers it; raises UnreadableMessage."""
    raw = _envelope(item)
    # The actual queue counts; the message may name another one.
    raw["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue}
    headers = raw.get("headers") or {}
    if not isinstance(headers, dict):
        raise UnreadableMessage("its headers are not an object")
    body = _body(raw, channel, headers)
    if "task" not in headers and isinstance(body, dict):
        headers, body = body, [body.get("args", []), body.get("kwargs", {}), {}]
    task, id = headers.get("task"), headers.get("id")
    if (reason := _fault(task, id, headers, body)) is not None:
        raise UnreadableMessage(reason, task, id)
    return raw


def _envelope(item: bytes) -> dict[str, Any]:
    try:
        raw = loads(item.decode())  # type: ignore[no-untyped-call]
    except Exception as error:
        # kombu makes times, decimals and ids of objects that say so: anything may be raised.
        raise UnreadableMessage(f"it is not JSON: {type(error).__name__}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("properties"), dict):
        raise UnreadableMessage("it is not the envelope of a message")
    if not isinstance(raw["properties"].get("delivery_tag"), str):
        raise UnreadableMessage("its properties have no delivery_tag")
    return raw


def _body(raw: dict[str, Any], channel: Any, headers: dict[str, Any]) -> Any:
    try:
        found = channel.Message(raw, channel=channel, accept=_ACCEPTED)
        for _, error, _ in found.errors:
            raise error
        body = found.payload
    except Exception as error:
        # kombu decodes base64, compression, character set and content type: anything may be raised.
        reason = f"its body cannot be decoded: {type(error).__name__}: {error}"
        raise UnreadableMessage(reason, headers.get("task"), headers.get("id")) from error
    return body


def _fault(task: Any, id: Any, headers: dict[str, Any], body: Any) -> str | None:
    """Why Celery cannot run the task; None if it can."""
    if not isinstance(task, str) or task not in _KNOWN:
        return f"no worker knows the task {written(repr(task))}"
    if not isinstance(id, str) or not id:
        return "its headers have no id"
    if not _is_call(body):
        return "its body is not [args, kwargs, embed]: a list, an object and an object"
    if "self" in body[1]:
        # Celery passes the task as `self`: the call would fail before the job has a record.
        return "keyword argument self: no request has such a field"
    return _fault_of_options(headers)


def _is_call(body: Any) -> bool:
    match body:
        case [list(), dict(), dict() | None]:
            return True
        case _:
            return False


def _fault_of_options(headers: dict[str, Any]) -> str | None:
    for name in ("eta", "expires"):
        if not _is_time(headers.get(name)):
            return f"its {name} is not a time"
    if not isinstance(headers.get("retries") or 0, int):
        return "its retries are not a number"
    match headers.get("timelimit"):
        case None | [int() | float() | None, int() | float() | None]:
            return None
        case _:
            return "its timelimit is not a pair of seconds"


def _is_time(value: Any) -> bool:
    try:
        maybe_iso8601(value)
    except (AttributeError, ValueError, TypeError):
        return False
    return True


def replacement(item: bytes, queue: str, error: UnreadableMessage) -> dict[str, Any]:
    """The message to deliver instead: its task stores the entry's first `KEPT_BYTES` bytes."""
    fields = {
        "reason": error.reason,
        "size_bytes": len(item),
        "data": base64.b64encode(item[:KEPT_BYTES]).decode(),
        "kind": error.kind,
        "task_id": error.task_id,
    }
    raw: dict[str, Any] = json.loads(message(redis_keys.UNREADABLE_TASK, fields, queue))
    return raw
