"""Enqueue routes: one per kind of job, so that each has its own schema in /docs."""

import difflib
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Response

from api_shim.dependencies import NativeSubmission
from api_shim.http.json_body import JsonRoute
from api_shim.http.problems import Refusal, documented
from contract.chat import ChatRequest, CountRequest
from contract.embeddings import EmbedRequest
from contract.images import ImageRequest
from contract.jobs import JobAccepted
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    LoadRequest,
    PullRequest,
    RunningRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.requests import Kind
from contract.rerank import RerankRequest

KINDS: Final[tuple[Kind, ...]] = (
    "chat", "embed", "pull", "image", "show", "running", "delete", "copy", "create", "load",
    "unload", "count", "rerank",
)  # fmt: skip
"""Kinds that a client may enqueue; `list` is answered from the roster."""

router = APIRouter(prefix="/api/v1/jobs", tags=["enqueue"], route_class=JsonRoute)

ACCEPTED: Final[dict[str, Any]] = {
    "description": "The job is queued; follow `events_url`.",
    "headers": {
        "Location": {"schema": {"type": "string"}, "description": "URL of the job."},
        "X-Fleet-Job": {"schema": {"type": "string"}, "description": "The job's id."},
        "Idempotent-Replayed": {
            "schema": {"type": "string", "const": "true"},
            "description": "Present if the Idempotency-Key was sent before: this is that job.",
        },
    },
}
_ROUTE: Final[dict[str, Any]] = {
    "status_code": 202,
    "response_model": JobAccepted,
    "responses": {202: ACCEPTED, **documented(400, 404, 409, 413, 415, 422, 429, 503)},
}


def _example(summary: str, **value: Any) -> Any:
    return Body(openapi_examples={"example": {"summary": summary, "value": value}})


@router.post("/chat", operation_id="enqueue_chat", **_ROUTE)
async def chat(
    request: Annotated[
        ChatRequest,
        _example("A question", model="llama3.2", messages=[{"role": "user", "content": "Hello!"}]),
    ],
    submit: NativeSubmission,
) -> Response:
    """Enqueue a chat; the result streams as `delta` events."""
    return await submit(request)


@router.post("/embed", operation_id="enqueue_embed", **_ROUTE)
async def embed(
    request: Annotated[
        EmbedRequest, _example("Two texts", model="nomic-embed-text", input=["one", "two"])
    ],
    submit: NativeSubmission,
) -> Response:
    """Embed texts; the result is `vectors` events in the order of `input`."""
    return await submit(request)


@router.post("/rerank", operation_id="enqueue_rerank", **_ROUTE)
async def rerank(
    request: Annotated[
        RerankRequest,
        _example(
            "Two documents",
            model="bge-reranker-v2-m3",
            query="When does the office open?",
            documents=["The office opens at nine.", "The river is wide."],
            top_n=1,
        ),
    ],
    submit: NativeSubmission,
) -> Response:
    """Score documents by a query; the result is `scores` events, and a `ranking` of them."""
    return await submit(request)


@router.post("/pull", operation_id="enqueue_pull", **_ROUTE)
async def pull(
    request: Annotated[PullRequest, _example("A download", backend="ollama", model="llama3.2")],
    submit: NativeSubmission,
) -> Response:
    """Pull a model to a backend; the result is `progress` events."""
    return await submit(request)


@router.post("/image", operation_id="enqueue_image", **_ROUTE)
async def image(
    request: Annotated[
        ImageRequest, _example("A picture", model="sd-turbo", prompt="a lighthouse")
    ],
    submit: NativeSubmission,
) -> Response:
    """Generate images; the result is `image` events."""
    return await submit(request)


@router.post("/show", operation_id="enqueue_show", **_ROUTE)
async def show(
    request: Annotated[ShowRequest, _example("All about a model", model="llama3.2")],
    submit: NativeSubmission,
) -> Response:
    """Show all that a backend knows about a model; the result is one `details` event."""
    return await submit(request)


@router.post("/count", operation_id="enqueue_count", **_ROUTE)
async def count(
    request: Annotated[
        CountRequest,
        _example("A prompt", model="llama3.2", messages=[{"role": "user", "content": "Hello!"}]),
    ],
    submit: NativeSubmission,
) -> Response:
    """Count a conversation's tokens as its model reads it; the result is one `details` event."""
    return await submit(request)


@router.post("/running", operation_id="enqueue_running", **_ROUTE)
async def running(
    request: Annotated[RunningRequest, _example("On one backend", backend="ollama")],
    submit: NativeSubmission,
) -> Response:
    """List the models that a backend has in memory; the result is one `details` event."""
    return await submit(request)


@router.post("/delete", operation_id="enqueue_delete", **_ROUTE)
async def delete(
    request: Annotated[DeleteRequest, _example("By name", backend="ollama", model="llama3.2")],
    submit: NativeSubmission,
) -> Response:
    """Delete a model from a backend."""
    return await submit(request)


@router.post("/copy", operation_id="enqueue_copy", **_ROUTE)
async def copy(
    request: Annotated[
        CopyRequest, _example("A second name", model="llama3.2", destination="assistant")
    ],
    submit: NativeSubmission,
) -> Response:
    """Copy a model to a second name."""
    return await submit(request)


@router.post("/create", operation_id="enqueue_create", **_ROUTE)
async def create(
    request: Annotated[
        CreateRequest,
        _example("With a system prompt", model="pirate", source="llama3.2", system="Say arr."),
    ],
    submit: NativeSubmission,
) -> Response:
    """Create a model from another; the result is `progress` events."""
    return await submit(request)


@router.post("/load", operation_id="enqueue_load", **_ROUTE)
async def load(
    request: Annotated[LoadRequest, _example("For an hour", model="llama3.2", keep_alive_s=3600)],
    submit: NativeSubmission,
) -> Response:
    """Load a model into memory."""
    return await submit(request)


@router.post("/unload", operation_id="enqueue_unload", **_ROUTE)
async def unload(
    request: Annotated[UnloadRequest, _example("Now", model="llama3.2")], submit: NativeSubmission
) -> Response:
    """Unload a model from memory."""
    return await submit(request)


@router.post("/{kind}", include_in_schema=False)
async def unknown(kind: str) -> Response:
    """Refuse an unknown kind of job."""
    raise Refusal(
        "unknown_kind",
        f"There is no kind of job {kind[:40]!r}; there are {', '.join(KINDS)}.",
        status=404,
        matches=difflib.get_close_matches(kind, KINDS),
    )
