"""Routes for chats, completions and embeddings: translate, submit, respond whole or as a stream."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Response

from api_shim.dependencies import DropIn
from api_shim.following.long_answer import LOGPROBS
from api_shim.following.piecewise import in_pieces
from api_shim.http.json_body import JsonRoute, let_go
from api_shim.openai import chat_response, completions, embeddings, schemas
from api_shim.openai.chat_request import ChatBody, to_chat
from api_shim.openai.completions import CompletionBody, echoed_prompt, to_completion
from api_shim.openai.embeddings import EmbeddingBody
from api_shim.openai.logprob_fields import chat_logprob
from api_shim.openai.response_head import (
    ResponseHead,
    encoded_response,
    json_response,
    response_headers,
)
from api_shim.openai.schemas import answers
from contract.json_lines import json_line

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)

_CHUNK: Final = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"m",'
    '"choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]}\n\n'
)


def _example(**value: Any) -> Any:
    return Body(openapi_examples={"example": {"summary": "A request", "value": value}})


@router.post(
    "/chat/completions",
    operation_id="openai_chat",
    response_class=Response,
    responses=answers(schemas.ChatCompletion, streams=_CHUNK),
)
async def chat(
    body: Annotated[
        ChatBody, _example(model="llama3.2", messages=[{"role": "user", "content": "Hello!"}])
    ],
    call: DropIn,
) -> Response:
    """Continue a conversation."""
    record = await call.submit(await call.request_of(to_chat, body))
    head = ResponseHead.of(record)
    if body.stream:
        chunks = chat_response.ChatChunks(head, with_usage=body.with_usage)
        return call.stream(record, chunks)
    result = await call.result(record, marks=("content", "thinking", LOGPROBS), entry=chat_logprob)
    head = ResponseHead.of(call.answered(record))
    return call.whole(json_response(chat_response.response_body(head, result), call.headers))


@router.post(
    "/completions",
    operation_id="openai_completion",
    response_class=Response,
    responses=answers(schemas.TextCompletion, streams=_CHUNK.replace("chatcmpl", "cmpl")),
)
async def completion(
    body: Annotated[CompletionBody, _example(model="llama3.2", prompt="Once upon a time")],
    call: DropIn,
) -> Response:
    """Continue raw text, without a chat template."""
    record = await call.submit(await call.translated(to_completion, body), body)
    head, echo = ResponseHead.of(record), echoed_prompt(body)
    let_go(body, "prompt")
    if body.stream:
        chunks = completions.CompletionChunks(head, with_usage=body.with_usage, echoed_prompt=echo)
        return call.stream(record, chunks)
    lists = completions.CompletionLogprobs()
    result = await call.result(record, marks=("content", LOGPROBS), on_frames=lists.add_all)
    head = ResponseHead.of(call.answered(record))
    told = completions.response_body(head, result.model_copy(update={"logprobs": None}), echo)
    return call.whole(encoded_response(lists.within(json_line(told)), call.headers))


@router.post(
    "/embeddings",
    operation_id="openai_embeddings",
    response_class=Response,
    responses=answers(schemas.EmbeddingList),
)
async def embed(
    body: Annotated[EmbeddingBody, _example(model="nomic-embed-text", input=["one", "two"])],
    call: DropIn,
) -> Response:
    """Turn texts into vectors."""
    request = await call.translated(embeddings.to_embed, body)
    record = await call.submit(request, body, spent=("input",))
    del request
    result = await call.result(record)
    pieces = embeddings.pieces(ResponseHead.of(call.answered(record)), result, body.encoding_format)
    head = response_headers(call.headers)
    return in_pieces(pieces, head)
