"""Routes for chat, generate, embed and embeddings."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from api_shim.dependencies import Dependencies, DropIn, Injected
from api_shim.following.drop_in import DropInCall
from api_shim.following.long_answer import LOGPROBS
from api_shim.following.piecewise import in_pieces
from api_shim.http.json_body import let_go
from api_shim.ollama import chat_request, embed, schemas
from api_shim.ollama.chat_request import GenerateBody, Generation, OllamaChatBody
from api_shim.ollama.chat_response import (
    CHAT,
    GENERATE,
    ChatResponseLines,
    LineShape,
    load_response,
    response_body,
)
from api_shim.ollama.embed import EmbedBody, EmbeddingsBody
from api_shim.ollama.models import is_unsupported
from api_shim.ollama.request_fields import NamedModel, unused_when_loading
from api_shim.ollama.response_fields import logprob
from api_shim.ollama.route import JOB_ENDS, AnyTypeRoute, documented
from contract.chat import ChatRequest
from contract.models import LoadRequest, UnloadRequest
from contract.result import Result

router = APIRouter(prefix="/api", tags=["ollama"], route_class=AnyTypeRoute)


def json(body: bytes, call: DropInCall) -> Response:
    """A JSON response that is not streamed."""
    headers = {"Cache-Control": "no-store", **call.headers}
    return Response(body, 200, headers, media_type="application/json")


def example(summary: str, **value: Any) -> Any:
    """A body parameter with an example for /docs."""
    return Body(openapi_examples={"example": {"summary": summary, "value": value}})


@router.post(
    "/chat",
    operation_id="ollama_chat",
    response_model=schemas.OllamaChatResponse,
    responses=documented(*JOB_ENDS, streamed=schemas.OllamaChatResponse),
)
async def post_chat(
    body: Annotated[
        OllamaChatBody,
        example("A question", model="llama3.2", messages=[{"role": "user", "content": "Hello!"}]),
    ],
    call: DropIn,
    dependencies: Injected,
) -> Response:
    """Continue a conversation; without messages, load the model, or unload it (keep_alive 0)."""
    job = call.request_of(chat_request.chat_to_job, body)
    return await _generate(body, await job, CHAT, call, dependencies)  # which lets go of the job


@router.post(
    "/generate",
    operation_id="ollama_generate",
    response_model=schemas.OllamaGenerateResponse,
    responses=documented(*JOB_ENDS, streamed=schemas.OllamaGenerateResponse),
)
async def post_generate(
    body: Annotated[GenerateBody, example("A prompt", model="llama3.2", prompt="Why is it blue?")],
    call: DropIn,
    dependencies: Injected,
) -> Response:
    """Continue a prompt; without one, load the model, or unload it (keep_alive 0)."""
    job = call.request_of(chat_request.generate_to_job, body)
    return await _generate(body, await job, GENERATE, call, dependencies)


async def _generate(
    body: Generation,
    job: ChatRequest | LoadRequest | UnloadRequest,
    shape: LineShape,
    call: DropInCall,
    dependencies: Dependencies,
) -> Response:
    model = body.model_name
    if not isinstance(job, ChatRequest):
        await _load_or_unload(job, body, call, dependencies)
        reason = "unload" if isinstance(job, UnloadRequest) else "load"
        return json(load_response(model, shape, reason, time.time()), call)
    let_go(body, "messages", "prompt", "images")
    record = await call.submit(job)
    if body.is_streamed:
        return call.stream(record, ChatResponseLines(model, shape))
    del job
    result = await call.result(record, marks=("content", "thinking", LOGPROBS), entry=logprob)
    return call.whole(json(response_body(model, shape, result), call))


async def _load_or_unload(
    job: LoadRequest | UnloadRequest,
    body: NamedModel,
    call: DropInCall,
    dependencies: Dependencies,
) -> None:
    """Load or unload the model, if a backend can: hosted models need neither.

    Clients load a model before they use it (`ollama run`). For a key that may use models and not
    load them, the first request loads it.
    """
    call.add_ignored(unused_when_loading(body))
    if isinstance(job, LoadRequest):
        await dependencies.roster.read()
        fleet = dependencies.listed(call.caller, job.model).values()
        if is_unsupported(job, fleet) or not call.caller.may("models:write"):
            return
    await call.result(await call.submit(job))


@router.post(
    "/embed",
    operation_id="ollama_embed",
    response_model=schemas.OllamaEmbedResponse,
    responses=documented(*JOB_ENDS),
)
async def post_embed(
    body: Annotated[
        EmbedBody, example("Two texts", model="nomic-embed-text", input=["one", "two"])
    ],
    call: DropIn,
    dependencies: Injected,
) -> Response:
    """Embed texts as vectors of length 1; without texts, load the model."""
    job = await call.translated(embed.to_embed_job, body)
    if isinstance(job, LoadRequest | UnloadRequest):
        await _load_or_unload(job, body, call, dependencies)
        return _embedded(body, None, call)
    record = await call.submit(job, body, spent=("input",))
    del job
    return _embedded(body, await call.result(record), call)


def _embedded(body: EmbedBody, result: Result | None, call: DropInCall) -> Response:
    """Thousands of vectors are megabytes of JSON."""
    headers = {"Cache-Control": "no-store", **call.headers}
    return in_pieces(embed.embed_pieces(body.model_name, result), headers)


@router.post(
    "/embeddings",
    operation_id="ollama_embeddings",
    response_model=schemas.OllamaEmbeddingsResponse,
    responses=documented(*JOB_ENDS),
)
async def post_embeddings(
    body: Annotated[EmbeddingsBody, example("One text", model="nomic-embed-text", prompt="one")],
    call: DropIn,
    dependencies: Injected,
) -> Response:
    """Embed one text; the older form of /api/embed."""
    job = await call.translated(embed.to_embed_job, body)
    if isinstance(job, LoadRequest | UnloadRequest):
        await _load_or_unload(job, body, call, dependencies)
        return json(embed.embeddings_response(None), call)
    result = await call.result(await call.submit(job, body))
    return json(embed.embeddings_response(result), call)
