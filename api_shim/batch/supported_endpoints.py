"""The endpoints that a batch may name: how each parses a row's body and renders its result.

A row uses the translators of the HTTP route: one from a body to a request, one from a result to a
body. A further endpoint is a further entry of ENDPOINTS.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from api_shim.access.route_permissions import NEEDS
from api_shim.anthropic.events import MessageFacts, whole_message
from api_shim.anthropic.message_body import MessagesBody
from api_shim.anthropic.message_request import to_request as to_message
from api_shim.batch.row_bodies import OF_CHAT, CompletionRow, ResponseRow, RowBody
from api_shim.cohere.errors import wrong_field
from api_shim.cohere.reranks import RerankBody, rerank_response, to_rerank
from api_shim.openai import chat_response, completions, embeddings, images
from api_shim.openai.chat_request import ChatBody, to_chat
from api_shim.openai.completions import CompletionBody, echoed_prompt, to_completion
from api_shim.openai.embeddings import EmbeddingBody, to_embed
from api_shim.openai.images import ImageBody, to_image
from api_shim.openai.logprob_fields import chat_logprob
from api_shim.openai.request_fields import unsupported_field
from api_shim.openai.response_head import ResponseHead
from api_shim.openai.responses.items import EarlierResponses
from api_shim.openai.responses.request import ResponseBody, to_request
from api_shim.openai.responses.response import ResponseFacts
from api_shim.submission.caller_rights import check_backend
from api_shim.submission.ignored_fields import ignored
from contract.chat import MessageNotes
from contract.errors import NotSupported
from contract.jobs import AnyRequest
from contract.tenants import Tenant


class BatchRequest(NamedTuple):
    """A parsed body."""

    request: AnyRequest
    begin: Callable[[], RowBody]
    """Begins the body of the row; held while the job runs."""
    left_out: tuple[str, ...]
    """Fields of the body that are ignored."""
    may_not_think: bool = False
    """Whether a model that cannot think is to answer without thinking."""


class BatchJob(NamedTuple):
    """The job that a row becomes."""

    id: str
    created: int
    """Unix seconds."""

    def head(self, model: str) -> ResponseHead:
        """The head of its response."""
        return ResponseHead(self.id, self.created, model, "batch")


def _chat(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    parsed = ChatBody.model_validate(body)
    head, unused = job.head(parsed.model), ignored(parsed)
    render = partial(chat_response.response_body, head)
    return BatchRequest(to_chat(parsed), partial(RowBody, render, OF_CHAT, chat_logprob), unused)


def _completion(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    parsed = CompletionBody.model_validate(body)
    head, first = job.head(parsed.model), echoed_prompt(parsed)
    render = partial(completions.response_body, head, echoed_prompt=first)
    return BatchRequest(to_completion(parsed), partial(CompletionRow, render), ignored(parsed))


def _embeddings(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    parsed = EmbeddingBody.model_validate(body)
    head, encoding = job.head(parsed.model), parsed.encoding_format
    render = partial(embeddings.response_body, head, encoding=encoding)
    return BatchRequest(to_embed(parsed), partial(RowBody, render), ignored(parsed))


def _rerank(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    parsed = RerankBody.model_validate(body)
    if parsed.return_documents:
        raise wrong_field(
            "return_documents",
            "not supported in a batch: results have the index of their document",
            NotSupported,
        )
    model = parsed.model
    render = partial(rerank_response, job.id, job.created, model)
    return BatchRequest(to_rerank(parsed), partial(RowBody, render), ignored(parsed))


def _image(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    parsed = ImageBody.model_validate(body).model_copy(update={"stream": None})
    head, request = job.head(parsed.model), to_image(parsed)
    render = partial(images.response_body, head, request)
    return BatchRequest(request, partial(RowBody, render), ignored(parsed))


def _response(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    parsed = ResponseBody.model_validate(body).model_copy(update={"background": None})
    if parsed.previous_response_id is not None:
        raise unsupported_field(
            "previous_response_id", "not supported in a batch: send the conversation as input"
        )
    unused = (*parsed.left_out, *ignored(parsed))
    request = to_request(parsed, EarlierResponses())
    about = ResponseFacts(job.head(parsed.model), request)
    return BatchRequest(request, partial(ResponseRow, about), unused)


def _message(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    parsed = MessagesBody.model_validate(body).model_copy(update={"stream": None})
    if parsed.thread is not None:
        raise unsupported_field("thread", "not supported in a batch: send the conversation")
    translated = to_message(parsed)
    notes = translated.request.message_notes or MessageNotes()
    facts = MessageFacts(job.id, parsed.model, "batch", notes)
    return BatchRequest(
        translated.request,
        partial(RowBody, partial(whole_message, facts)),
        translated.left_out,
        translated.may_not_think,
    )


ParseBody = Callable[[Mapping[str, Any], BatchJob], BatchRequest]
"""Parses a body for a job; raises ValidationError or Refusal."""

ENDPOINTS: Final[Mapping[str, ParseBody]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embeddings,
    "/v1/images/generations": _image,
    "/v1/responses": _response,
    "/v1/messages": _message,
    "/v1/rerank": _rerank,
}


def check_batch(tenant: Tenant, endpoint: str, backend: str | None) -> None:
    """Check that a tenant's key may do the jobs of a batch; raises NotAllowed.

    Each line is checked again when it becomes a job.
    """
    match NEEDS[f"POST {endpoint}"]:
        case "nothing" | "key":
            pass
        case permission:
            tenant.require(permission)
    check_backend(tenant, backend)
