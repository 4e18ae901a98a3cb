"""One valid request for each operation, from which made-up ones then depart.

A round begins an operation with it, so that each one does what it is for at least once: what is
made up of a schema alone names models and files that do not exist, and is refused before much
happens.
"""

import json
import time
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from fuzz.tenants import ALIAS, PAUSED, Caller, Stage

NEVER_SERVED: Final = {
    "POST /api/blobs/{digest}": "blobs are not supported: 501",
    "POST /api/push": "pushes are not supported: 501",
    "POST /api/v1/backends": "needs `fleet up`, whose socket this fleet has not",
    "DELETE /api/v1/backends/{name}": "forgets only one that no live worker has",
    "POST /v1/responses/compact": "a fleet compacts no conversations: 400",
}
"""Operations that no request can have done here, with the reason."""
COPY: Final = "a-copy"
_EVERYBODYS: Final = {"/v1/models": "scripted-echo", "/api/v1/aliases": ALIAS}
_CHATS: Final = "/v1/chat/completions"
_BACKEND: Final = {"backend": "ollama"}
_PICTURE: Final = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


@dataclass(frozen=True)
class Valid:
    """What a request consists of, beside its method and path."""

    body: Any = None
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)


def valid(at: Stage, caller: Caller, operation: str) -> Valid:
    """A request that this operation serves, if the caller has the rights.

    What it needs and a furnished stage has not is made first.
    """
    make = _MADE.get(operation)
    if make is not None:
        return make(at, caller)
    path = operation.partition(" ")[2]
    name = path.partition("{")[2].partition("}")[0]
    named = {name: _thing(caller, path)} if name else {}
    return Valid(body_of(caller, operation), named)


def body_of(caller: Caller, operation: str) -> Any:
    """A valid body of an operation; None if it takes none."""
    make = _BODIES.get(operation.partition(" ")[2]) or _BODIES.get(operation)
    return None if make is None else make(caller)


def _thing(caller: Caller, path: str) -> str:
    """The id of a caller's thing at a path; any id, if only an admin can have one."""
    sort = "/api/v1/dead" if path.endswith("/retry") else path
    things = {**_EVERYBODYS, **caller.things}
    fitting = [each for each in things if sort.startswith(each)]
    return things[max(fitting, key=len)] if fitting else "nothing"


def _chat(caller: Caller) -> dict[str, Any]:
    return {
        "model": "scripted-echo",
        "messages": [{"role": "user", "content": caller.secret}],
        "max_tokens": 30,
    }


def _texts(caller: Caller) -> dict[str, Any]:
    return {"model": "scripted-embed", "input": [caller.secret, "two"]}


def _prompt(caller: Caller) -> dict[str, Any]:
    return {"model": "scripted-echo", "prompt": caller.secret}


def _response(caller: Caller) -> dict[str, Any]:
    return {"model": "scripted-echo", "input": caller.secret}


def _picture(caller: Caller) -> dict[str, Any]:
    return {"model": "scripted-image", "prompt": caller.secret, "size": "64x64"}


def _native_picture(caller: Caller) -> dict[str, Any]:
    return {"model": "scripted-image", "prompt": caller.secret, "width": 64, "height": 64}


def _edit(caller: Caller) -> dict[str, Any]:
    return {"model": "scripted-image", "prompt": caller.secret, "image": _PICTURE}


def _ranking(caller: Caller) -> dict[str, Any]:
    return {"model": "scripted-rerank", "query": caller.secret, "documents": ["one", "two"]}


def _pair(caller: Caller) -> dict[str, Any]:
    return {"model": "scripted-rerank", "text_1": caller.secret, "text_2": ["one", "two"]}


def _webhook(caller: Caller) -> dict[str, Any]:
    return {"url": f"https://fuzz.invalid/{caller.secret}"}


def _file(caller: Caller) -> dict[str, Any]:
    return {"purpose": "user_data", "file": caller.secret.encode()}


def _of_a_model(model: str = "scripted-echo", **more: Any) -> Callable[[Caller], dict[str, Any]]:
    return lambda _caller: {"model": model, **more}


def _same(**body: Any) -> Callable[[Caller], dict[str, Any]]:
    return lambda _caller: body


_BODIES: Final[dict[str, Callable[[Caller], Any]]] = {
    "/api/v1/jobs/chat": lambda it: {**_chat(it), "metadata": {"note": it.secret}},
    "/api/v1/jobs/embed": _texts,
    "/api/v1/jobs/rerank": _ranking,
    "/api/v1/jobs/pull": _of_a_model("pulled", **_BACKEND),
    "/api/v1/jobs/image": _native_picture,
    "/api/v1/jobs/show": _of_a_model(),
    "/api/v1/jobs/count": lambda it: {name: _chat(it)[name] for name in ("model", "messages")},
    "/api/v1/jobs/running": _same(**_BACKEND),
    "/api/v1/jobs/delete": _of_a_model(COPY, **_BACKEND),
    "/api/v1/jobs/copy": _of_a_model(destination=COPY, **_BACKEND),
    "/api/v1/jobs/create": _of_a_model(COPY, source="scripted-echo", **_BACKEND),
    "/api/v1/jobs/load": _of_a_model(**_BACKEND),
    "/api/v1/jobs/unload": _of_a_model(**_BACKEND),
    "/api/v1/dead/redrive": _same(queue="scripted.chat", dry_run=True),
    "PUT /api/v1/queues/{queue}/windows": _same(windows=[]),
    "/api/v1/queues/{queue}/pause": _same(),
    "PUT /api/v1/aliases/{name}": _of_a_model(),
    "POST /api/v1/keys": _same(tenant="spare", permissions=["chat"]),
    "PATCH /api/v1/keys/{id}": _same(name="changed"),
    "/api/v1/keys/{id}/rotate": _same(overlap_s=60),
    "POST /api/v1/webhooks": _webhook,
    "PATCH /api/v1/webhooks/{id}": _same(name="changed"),
    "/api/v1/webhooks/{id}/rotate": _same(overlap_s=60),
    "/api/v1/webhooks/{id}/replay": lambda _caller: {"since": time.time() - 60},
    "/api/chat": _chat,
    "/api/generate": _prompt,
    "/api/embed": _texts,
    "/api/embeddings": lambda it: {"model": "scripted-embed", "prompt": it.secret},
    "/api/pull": _of_a_model("pulled", **_BACKEND),
    "/api/create": lambda _caller: {"model": COPY, "from": "scripted-echo", **_BACKEND},
    "/api/show": _of_a_model(),
    "/api/copy": _same(source="scripted-echo", destination=COPY, **_BACKEND),
    "POST /v1/messages/batches": lambda it: {
        "requests": [{"custom_id": it.secret, "params": _chat(it)}]
    },
    "POST /v1/messages": _chat,
    "/v1/messages/count_tokens": lambda it: {
        name: _chat(it)[name] for name in ("model", "messages")
    },
    _CHATS: _chat,
    "/v1/completions": _prompt,
    "/v1/embeddings": _texts,
    "POST /v1/responses": _response,
    "/v1/responses/input_tokens": _response,
    "/v1/images/generations": _picture,
    "/v1/images/edits": _edit,
    "POST /v1/files": _file,
    "POST /v1/batches": lambda it: {
        "input_file_id": it.things["/v1/files"],
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
    },
    "/v1/rerank": _ranking,
    "/v2/rerank": _ranking,
    "/rerank": _ranking,
    "/v1/score": _pair,
    "/score": _pair,
    "/v2/embed": lambda it: {
        "model": "scripted-embed",
        "input_type": "search_document",
        "texts": [it.secret],
        "embedding_types": ["float"],
    },
}


def _messages_to_cancel(at: Stage, caller: Caller) -> Valid:
    made = at.ask(caller, "POST", "/v1/messages/batches", json={"requests": [_slow_line(caller)]})
    return Valid(path={"id": made["id"]})


def _slow_line(caller: Caller) -> dict[str, Any]:
    """A line that takes longer than its batch is to live."""
    slow = {"model": "scripted-story:first=30", "backend": "scripted"}
    return {"custom_id": "1", "params": {**_chat(caller), **slow}}


def _batch_to_cancel(at: Stage, caller: Caller) -> Valid:
    line = _slow_line(caller)
    row = {"custom_id": "1", "method": "POST", "url": _CHATS, "body": line["params"]}
    file = {"file": ("rows", json.dumps(row))}
    sent = at.ask(caller, "POST", "/v1/files", files=file, data={"purpose": "batch"})
    body = {"input_file_id": sent["id"], "endpoint": _CHATS, "completion_window": "24h"}
    return Valid(path={"batch_id": at.ask(caller, "POST", "/v1/batches", json=body)["id"]})


def _copy_to_delete(at: Stage, caller: Caller) -> Valid:
    at.ask(caller, "POST", "/api/copy", json=body_of(caller, "POST /api/copy"))
    return Valid({"model": COPY, **_BACKEND})


def _queue_to_pause(_at: Stage, _caller: Caller) -> Valid:
    return Valid({}, {"queue": PAUSED})


def _tenant_to_delete(at: Stage, caller: Caller) -> Valid:
    if caller.is_admin:
        at.ask(caller, "POST", "/api/v1/keys", json={"tenant": "spare"})
    return Valid(None, {"name": "spare"}, {"confirm": "spare"})


def _deleted_tenant(at: Stage, caller: Caller) -> Valid:
    if caller.is_admin:
        at.ask(caller, "DELETE", "/api/v1/tenants/spare?confirm=spare")
    return Valid(path={"name": "spare"})


_MADE: Final[dict[str, Callable[[Stage, Caller], Valid]]] = {
    "POST /v1/batches/{batch_id}/cancel": _batch_to_cancel,
    "POST /v1/messages/batches/{id}/cancel": _messages_to_cancel,
    "DELETE /api/delete": _copy_to_delete,
    "DELETE /api/v1/tenants/{name}": _tenant_to_delete,
    "GET /api/v1/tenants/{name}/deletion": _deleted_tenant,
}
