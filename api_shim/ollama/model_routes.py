"""Routes for models and for the server's version."""

import time
from typing import Annotated, Final

from fastapi import APIRouter, Response

from api_shim.dependencies import DropIn, Injected
from api_shim.following.drop_in import DropInCall
from api_shim.http.authentication import Caller
from api_shim.http.problems import Refusal
from api_shim.ollama import model_responses, models, schemas
from api_shim.ollama.chat_routes import example, json
from api_shim.ollama.model_responses import CreateBody, ProgressLines, PullBody
from api_shim.ollama.models import CopyBody, DeleteBody, ShowBody
from api_shim.ollama.route import JOB_ENDS, AnyTypeRoute, documented
from contract.models import CreateRequest, PullRequest

OLLAMA_VERSION: Final = "0.32.6"
"""The release of ollama/ollama whose API this surface follows; clients require a minimum."""
_NO_PUSH: Final = (
    "push: a fleet does not publish models; run `ollama push` on the machine that has the model"
)

router = APIRouter(prefix="/api", tags=["ollama"], route_class=AnyTypeRoute)


@router.post(
    "/pull",
    operation_id="ollama_pull",
    response_model=schemas.OllamaProgress,
    responses=documented(*JOB_ENDS, 507, streamed=schemas.OllamaProgress),
)
async def post_pull(
    body: Annotated[PullBody, example("A download", model="llama3.2")], call: DropIn
) -> Response:
    """Download a model to a backend; concurrent requests share one download."""
    return await _build(model_responses.to_pull(body), body, call)


@router.post(
    "/create",
    operation_id="ollama_create",
    response_model=schemas.OllamaProgress,
    responses=documented(*JOB_ENDS, 507, streamed=schemas.OllamaProgress),
)
async def post_create(
    body: Annotated[
        CreateBody,
        example("With a system prompt", **{"model": "pirate", "from": "llama3.2", "system": "Arr"}),
    ],
    call: DropIn,
) -> Response:
    """Create a model from another one of the same backend."""
    return await _build(model_responses.to_create(body), body, call)


async def _build(
    job: PullRequest | CreateRequest, body: PullBody | CreateBody, call: DropInCall
) -> Response:
    record = await call.submit(job, body)
    if body.stream is not False:
        return call.stream(record, ProgressLines(is_from_another=isinstance(job, CreateRequest)))
    await call.result(record)
    return json(model_responses.SUCCESS, call)


@router.get(
    "/tags",
    operation_id="ollama_tags",
    response_model=schemas.OllamaModelList,
    responses=documented(),
)
@router.head("/tags", include_in_schema=False)
async def get_tags(dependencies: Injected, caller: Caller) -> Response:
    """List the models of all backends, and the aliases."""
    await dependencies.roster.read()
    found = dependencies.listed(caller).values()
    return _json(models.tags_response(found, time.time()))


@router.get(
    "/ps", operation_id="ollama_ps", response_model=schemas.OllamaModelList, responses=documented()
)
async def get_ps(dependencies: Injected, caller: Caller) -> Response:
    """List the models that a backend has in memory."""
    found = (await dependencies.roster.pools_of(caller)).values()
    return _json(models.ps_response(found, time.time()))


def _json(body: bytes) -> Response:
    return Response(body, 200, {"Cache-Control": "no-store"}, media_type="application/json")


@router.post(
    "/show",
    operation_id="ollama_show",
    response_model=schemas.OllamaShowResponse,
    responses=documented(*JOB_ENDS),
)
async def post_show(
    body: Annotated[ShowBody, example("All about a model", model="llama3.2")],
    call: DropIn,
    dependencies: Injected,
) -> Response:
    """Show a model: the backend's details, or what workers report."""
    job = models.to_show(body)
    await dependencies.roster.read()
    fleet = dependencies.listed(call.caller, job.model).values()
    reports = models.reports_of(job.model, job.backend, fleet)
    is_unsupported = models.is_unsupported(job, fleet)
    result = None if is_unsupported else await call.result(await call.submit(job, body))
    kinds = models.kinds_of(job.model, job.backend, fleet)
    return json(models.show_response(job.model, reports, result, time.time(), kinds), call)


@router.post(
    "/copy", operation_id="ollama_copy", response_class=Response, responses=documented(*JOB_ENDS)
)
async def post_copy(
    body: Annotated[CopyBody, example("A name", source="llama3.2", destination="assistant")],
    call: DropIn,
) -> Response:
    """Copy a model to a second name; the response is empty."""
    await call.result(await call.submit(models.to_copy(body), body))
    return Response(status_code=200, headers=dict(call.headers))


@router.delete(
    "/delete",
    operation_id="ollama_delete",
    response_class=Response,
    responses=documented(*JOB_ENDS),
)
async def delete_delete(
    body: Annotated[DeleteBody, example("By name", model="llama3.2")], call: DropIn
) -> Response:
    """Delete a model from its backend; the response is empty."""
    await call.result(await call.submit(models.to_delete(body), body))
    return Response(status_code=200, headers=dict(call.headers))


@router.post(
    "/push", operation_id="ollama_push", responses=documented(501), response_class=Response
)
async def post_push() -> Response:
    """Refused: a fleet does not publish models."""
    raise Refusal("not_supported", _NO_PUSH, status=501)


@router.head("/blobs/{digest}", include_in_schema=False)
async def head_blob(digest: str) -> Response:  # noqa: ARG001 - whichever it is
    """No blob exists here."""
    return Response(status_code=404)


@router.post(
    "/blobs/{digest}",
    operation_id="ollama_blob",
    responses=documented(501),
    response_class=Response,
)
async def post_blob(digest: str) -> Response:  # noqa: ARG001 - whichever it is
    """Refused: a fleet does not transfer files to its backends."""
    raise Refusal("not_supported", f"blobs: {model_responses.NO_BLOBS}.", status=501)


@router.get(
    "/version",
    operation_id="ollama_version",
    response_model=schemas.OllamaVersion,
    responses=documented(),
)
@router.head("/version", include_in_schema=False)
async def get_version() -> Response:
    """Get the Ollama release whose API this follows."""
    return _json(b'{"version":"%s"}' % OLLAMA_VERSION.encode())
