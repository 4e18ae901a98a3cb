"""The endpoints that a batch may name, and how the rows of each become jobs and answers.

A row goes the way of a call: the same translator makes a request of its body, and a body of what
the job says. There is nothing else to an endpoint, so another one is another line here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from api_shim.openai import chat_response, completions, embeddings, images
from api_shim.openai.chat_request import ChatBody, to_chat
from api_shim.openai.completions import CompletionBody, repeated, to_completion
from api_shim.openai.embeddings import EmbeddingBody, to_embed
from api_shim.openai.images import ImageBody, to_image
from api_shim.openai.request_fields import unsupported
from api_shim.openai.response_head import ResponseHead
from api_shim.openai.responses import response
from api_shim.openai.responses.items import Known
from api_shim.openai.responses.request import ResponseBody, to_request
from api_shim.submission.ignored_fields import ignored
from contract.jobs import AnyRequest
from contract.result import Result

RenderBody = Callable[[Result], Mapping[str, Any]]
"""From what a job that is done has said to the body that a call would have been answered with.

It is kept as long as the job is under way, so it holds nothing of the request that is large.
"""


class BatchRequest(NamedTuple):
    """A body, understood."""

    request: AnyRequest
    render: RenderBody
    left_out: tuple[str, ...]
    """Fields of the body that nothing is done with."""


class BatchJob(NamedTuple):
    """What a row will be."""

    id: str
    created: int
    """Unix seconds."""

    def head(self, model: str) -> ResponseHead:
        """What its answer says of itself."""
        return ResponseHead(self.id, self.created, model, "batch")


def _chat(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    asked = ChatBody.model_validate(body)
    head = job.head(asked.model)
    return BatchRequest(
        to_chat(asked), lambda result: chat_response.whole(head, result), ignored(asked)
    )


def _completion(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    asked = CompletionBody.model_validate(body)
    head, first = job.head(asked.model), repeated(asked)
    return BatchRequest(
        to_completion(asked),
        lambda result: completions.whole(head, result, first),
        ignored(asked),
    )


def _embeddings(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    asked = EmbeddingBody.model_validate(body)
    head, encoding = job.head(asked.model), asked.encoding_format
    return BatchRequest(
        to_embed(asked),
        lambda result: embeddings.whole(head, result, encoding),
        ignored(asked),
    )


def _image(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    asked = ImageBody.model_validate(body).model_copy(update={"stream": None})
    head, request = job.head(asked.model), to_image(asked)
    return BatchRequest(request, lambda result: images.whole(head, request, result), ignored(asked))


def _response(body: Mapping[str, Any], job: BatchJob) -> BatchRequest:
    asked = ResponseBody.model_validate(body).model_copy(update={"background": None})
    if asked.previous_response_id is not None:
        raise unsupported(
            "previous_response_id", "a row stands alone: send the conversation as input"
        )
    request = to_request(asked, Known())
    about = response.ResponseFacts(job.head(asked.model), request)
    return BatchRequest(request, lambda result: response.whole(about, result), ignored(asked))


ParseBody = Callable[[Mapping[str, Any], BatchJob], BatchRequest]
"""From a body, and the job that it becomes; raises ValidationError or Refusal."""

ENDPOINTS: Final[Mapping[str, ParseBody]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embeddings,
    "/v1/images/generations": _image,
    "/v1/responses": _response,
}
