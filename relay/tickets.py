"""Tickets: Celery messages that announce a waiting job in a queue without naming it.

A ticket is written by hand into the list that Celery's workers pop, because `apply_async` costs a
millisecond and blocks (docs/adr/0001). A test compares it with what `apply_async` writes.
"""

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import uuid4

from contract.redis_keys import TICKET_TASK
from relay.chance import unique_id

_ANY_ID = "<id>"
_ANY_TAG = "<tag>"
_NO_CANVAS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def ticket(queue: str) -> str:
    """A ticket for a queue (JSON)."""
    return _form(queue).replace(_ANY_ID, unique_id()).replace(_ANY_TAG, unique_id())


@lru_cache(maxsize=1024)
def _form(queue: str) -> str:
    """A ticket for a queue, to be filled in: an enqueue may need one, and json is slow."""
    return _written(TICKET_TASK, {"queue": queue}, queue, _ANY_ID, _ANY_TAG)


def message(task: str, kwargs: Mapping[str, Any], queue: str) -> str:
    """A call of a task: protocol 2 in kombu's envelope for virtual transports (JSON)."""
    return _written(task, kwargs, queue, str(uuid4()), str(uuid4()))


def _written(task: str, kwargs: Mapping[str, Any], queue: str, id: str, tag: str) -> str:
    body = json.dumps([[], kwargs, _NO_CANVAS]).encode()
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": _headers(id, task, repr(kwargs)[:1024]),
            "properties": {
                "correlation_id": id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": tag,
            },
        }
    )


def _headers(id: str, task: str, kwargs: str) -> dict[str, object]:
    return {
        "lang": "py",
        "task": task,
        "id": id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": kwargs,
        "origin": "fleet",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
