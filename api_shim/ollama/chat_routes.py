"""The routes of /api that make words and vectors: chat, generate, embed, embeddings."""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from api_shim.dependencies import Dependencies, Wired
from api_shim.following.drop_in import DropInCall, Visiting
from api_shim.ollama import chat_request, embed, schemas
from api_shim.ollama.chat_request import GenerateBody, Generation, OllamaChatBody
from api_shim.ollama.chat_response import CHAT, GENERATE, ChatResponseLines, LineShape, idle, whole
from api_shim.ollama.embed import EmbedBody, EmbeddingsBody
from api_shim.ollama.models import is_beyond
from api_shim.ollama.request_fields import NamedModel, without_words
from api_shim.ollama.route import JOB_ENDS, AnyTypeRoute, told
from api_shim.submission.roster_cache import pools
from contract.chat import ChatRequest
from contract.models import LoadRequest, UnloadRequest

router = APIRouter(prefix="/api", tags=["ollama"], route_class=AnyTypeRoute)


def json(body: bytes, visit: DropInCall) -> Response:
    """One whole answer."""
    headers = {"Cache-Control": "no-store", **visit.headers}
    return Response(body, 200, headers, media_type="application/json")


def example(summary: str, **value: Any) -> Any:
    """A body that /docs shows."""
    return Body(openapi_examples={"example": {"summary": summary, "value": value}})


@router.post(
    "/chat",
    operation_id="ollama_chat",
    response_model=schemas.ChatAnswer,
    responses=told(*JOB_ENDS, streamed=schemas.ChatAnswer),
)
async def post_chat(
    body: Annotated[
        OllamaChatBody,
        example("A question", model="llama3.2", messages=[{"role": "user", "content": "Hello!"}]),
    ],
    visit: Visiting,
    wiring: Wired,
) -> Response:
    """Continue a conversation; without messages, load the model, or unload it (keep_alive 0)."""
    return await _words(body, chat_request.chat_to_job(body), CHAT, visit, wiring)


@router.post(
    "/generate",
    operation_id="ollama_generate",
    response_model=schemas.GenerateAnswer,
    responses=told(*JOB_ENDS, streamed=schemas.GenerateAnswer),
)
async def post_generate(
    body: Annotated[GenerateBody, example("A prompt", model="llama3.2", prompt="Why is it blue?")],
    visit: Visiting,
    wiring: Wired,
) -> Response:
    """Go on from a prompt; without one, load the model, or unload it (keep_alive 0)."""
    return await _words(body, chat_request.generate_to_job(body), GENERATE, visit, wiring)


async def _words(
    body: Generation,
    job: ChatRequest | LoadRequest | UnloadRequest,
    shape: LineShape,
    visit: DropInCall,
    wiring: Dependencies,
) -> Response:
    model = body.wanted
    if not isinstance(job, ChatRequest):
        await _in_memory(job, body, visit, wiring)
        reason = "unload" if isinstance(job, UnloadRequest) else "load"
        return json(idle(model, shape, reason, time.time()), visit)
    record = await visit.take(job, body)
    if body.is_streamed:
        return visit.stream(record, ChatResponseLines(model, shape))
    return json(whole(model, shape, await visit.whole(record)), visit)


async def _in_memory(
    job: LoadRequest | UnloadRequest, asked: NamedModel, visit: DropInCall, wiring: Dependencies
) -> None:
    """Load or unload, where there is something to do: a hosted model is always there."""
    visit.leave_out(without_words(asked))
    if isinstance(job, LoadRequest):
        fleet = pools(await wiring.census.workers())
        if is_beyond(job, fleet.values()):
            return
    await visit.whole(await visit.take(job))


@router.post(
    "/embed",
    operation_id="ollama_embed",
    response_model=schemas.EmbedAnswer,
    responses=told(*JOB_ENDS),
)
async def post_embed(
    body: Annotated[
        EmbedBody, example("Two texts", model="nomic-embed-text", input=["one", "two"])
    ],
    visit: Visiting,
    wiring: Wired,
) -> Response:
    """Turn texts into vectors of length 1; without texts, load the model."""
    job = embed.to_job(body)
    if isinstance(job, LoadRequest | UnloadRequest):
        await _in_memory(job, body, visit, wiring)
        return json(embed.embedded(body.wanted, None), visit)
    result = await visit.whole(await visit.take(job, body))
    # Thousands of vectors are megabytes of JSON, and other calls' words wait meanwhile.
    return json(await asyncio.to_thread(embed.embedded, body.wanted, result), visit)


@router.post(
    "/embeddings",
    operation_id="ollama_embeddings",
    response_model=schemas.EmbeddingsAnswer,
    responses=told(*JOB_ENDS),
)
async def post_embeddings(
    body: Annotated[EmbeddingsBody, example("One text", model="nomic-embed-text", prompt="one")],
    visit: Visiting,
    wiring: Wired,
) -> Response:
    """Turn one text into a vector, as it was done before /api/embed."""
    job = embed.to_job(body)
    if isinstance(job, LoadRequest | UnloadRequest):
        await _in_memory(job, body, visit, wiring)
        return json(embed.embedding(None), visit)
    result = await visit.whole(await visit.take(job, body))
    return json(embed.embedding(result), visit)
