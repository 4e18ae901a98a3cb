"""Every field of the newest clients is passed on, refused, named as ignored, or about the answer.

The clients' own request types say which fields there are; `fields.py` says what becomes of each. A
client that knows a new field fails here until somebody has decided about it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ollama
import pytest
from anthropic.types import message_create_params
from clients import fields as known
from clients.fields import ANSWER, NAMED, PASSED, REFUSED
from ollama import _types as theirs
from openai.types import (
    batch_create_params,
    completion_create_params,
    embedding_create_params,
    file_create_params,
    image_edit_params,
    image_generate_params,
)
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params
from pydantic import ValidationError
from support.client_schemas import TAG, Field, Values, fields

from api_shim.anthropic.message_body import MessagesBody, TurnBody
from api_shim.anthropic.message_request import Translated
from api_shim.anthropic.message_request import to_request as to_message
from api_shim.batch.file_routes import FileForm
from api_shim.batch.routes import BatchBody
from api_shim.http.problems import Refusal
from api_shim.ollama import chat_request, embed, model_responses, models
from api_shim.openai.chat_request import ChatBody, to_chat
from api_shim.openai.completions import CompletionBody, to_completion
from api_shim.openai.embeddings import EmbeddingBody, to_embed
from api_shim.openai.images import ImageBody, to_image
from api_shim.openai.responses.items import EarlierResponses, ItemBody
from api_shim.openai.responses.request import ResponseBody, to_request
from api_shim.submission.ignored_fields import LenientModel, ignored
from contract.errors import FleetError

TOOLS = [{"type": "function", "function": {"name": name}} for name in "xy"]
FLAT_TOOLS = [{"type": "function", "name": name} for name in "xy"]
MESSAGE_TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in "xy"]
IMAGE = ("data:image/png;base64,iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgoA")


@dataclass(frozen=True)
class Endpoint:
    """One of theirs, and how ours reads it."""

    theirs: Any
    body: type[LenientModel]
    to: Callable[[Any], Any]
    fates: Mapping[str, str]
    values: Values = field(default_factory=dict)
    """What to send where any value of the type would not do."""
    besides: Mapping[str, Any] = field(default_factory=dict)
    """What stands in every body that does not say it itself."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What must stand beside a field, by the path of the object that holds it."""
    files: frozenset[str] = frozenset()

    @property
    def walked(self) -> list[Field]:
        """Every field that the client has, but those that are files of a form."""
        found = fields(self.theirs, self.values, self.beside)
        return [each for each in found if each.path not in self.files]

    def outcome(self, body: Any) -> tuple[str, tuple[str, ...]] | None:
        """The request that a body means, and what of it is named; None if it is refused."""
        try:
            asked = self.body.model_validate({**self.besides, **body})
            named = (*ignored(asked), *getattr(asked, "left_out", ()))
            request = self.to(asked)  # which uses the body up
        except (ValidationError, Refusal, FleetError):
            return None
        if isinstance(request, Translated):
            request, named = request.request, request.left_out
        shown = request.model_dump(exclude={"response_notes"}) if request is not asked else {}
        return repr(shown), named

    def fate(self, path: str) -> str | None:
        """What the table says; what stands below a field that is refused or named shares that."""
        if path in self.fates:
            return self.fates[path]
        above = (prefix for prefix in _prefixes(path) if prefix in self.fates)
        found = self.fates.get(next(above, ""))
        return found if found in {REFUSED, NAMED} else None


def _prefixes(path: str) -> Iterator[str]:
    for at in range(len(path) - 1, 0, -1):
        if path[at] in ".[(":
            yield path[:at]
        if path[at] in "])":
            yield path[: at + 1]


def edited(body: ImageBody) -> Any:
    """An edit: its files are no fields of the body."""
    return to_image(body, image=IMAGE[0])


def itself(body: LenientModel) -> Any:
    """What becomes no job."""
    return body


def message_after_another(body: MessagesBody) -> Translated:
    """A turn may be empty once that is left out which no backend can use; a conversation not."""
    first = TurnBody(role="user", content="x")
    return to_message(body.model_copy(update={"messages": [first, *body.messages]}))


def response_after_another(body: ResponseBody) -> Any:
    """An item may be passed over; an input of such items alone is refused."""
    if isinstance(body.input, list):
        first = ItemBody(role="user", content="x")
        body = body.model_copy(update={"input": [first, *body.input]})
    return to_request(body, EarlierResponses())


RESPONSE_VALUES = {
    "input": ("x", "y"),
    "input[message].role": ("user", "system"),
    "input[message].content[input_image].image_url": IMAGE,
    "input[function_call_output].output[input_image].image_url": IMAGE,
    "input[function_call_output].output": ("x", "y"),
    "input[custom_tool_call_output].output[input_image].image_url": IMAGE,
    "input[custom_tool_call_output].output": ("x", "y"),
    "tools[namespace].tools[function].parameters": ({"type": "object"}, {"type": "object", "a": 1}),
    "tools[tool_search].parameters": ({"type": "object"},),
    "metadata": ({"a": "b"}, {"a": "c"}),
    "service_tier": ("priority", "flex"),
    "previous_response_id": ("resp_" + "0" * 32,),
    "include": (["message.output_text.logprobs"], []),
    "store": (True, False),
    "text.verbosity": ("low",),
    "reasoning.summary": ("auto",),
    "stream_options.include_obfuscation": (True,),
    "tool_choice": ("required", "auto"),
    "temperature": (0.5, 0.25),
    "top_logprobs": (1, 2),
    "tool_choice(allowed_tools).tools": (FLAT_TOOLS, FLAT_TOOLS[:1]),
}
ENDPOINTS = {
    "chat": Endpoint(
        chat_params.CompletionCreateParamsStreaming,
        ChatBody,
        to_chat,
        known.CHAT,
        {
            "messages[user].content[image_url].image_url.url": IMAGE,
            "messages[user].content[image_url].image_url.detail": ("low",),
            "metadata": ({"a": "b"}, {"a": "c"}),
            "service_tier": ("priority", "flex"),
            "n": (2,),
            "logit_bias": ({"1": 1}, {"2": 1}),
            "modalities": (["audio"],),
            "function_call": ("none", "auto"),
            "tool_choice": ("required", "auto"),
            "tool_choice(allowed_tools).allowed_tools.tools": (TOOLS, []),
            "store": (True,),
            "stream_options.include_obfuscation": (True,),
            "response_format": ({"type": "json_object"}, {"type": "text"}),
            "messages[assistant].refusal": ("x", "y"),
        },
        {"tools": TOOLS},
    ),
    "completions": Endpoint(
        completion_create_params.CompletionCreateParamsStreaming,
        CompletionBody,
        to_completion,
        known.COMPLETIONS,
        {
            "n": (2,),
            "best_of": (2,),
            "logit_bias": ({"1": 1}, {"2": 1}),
            "stream_options.include_obfuscation": (True,),
        },
    ),
    "embeddings": Endpoint(
        embedding_create_params.EmbeddingCreateParams, EmbeddingBody, to_embed, known.EMBEDDINGS
    ),
    "images": Endpoint(
        image_generate_params.ImageGenerateParamsStreaming,
        ImageBody,
        to_image,
        known.IMAGES,
        known.IMAGE_VALUES,
        {"model": "x"},
    ),
    "edits": Endpoint(
        image_edit_params.ImageEditParamsStreaming,
        ImageBody,
        edited,
        known.EDITS,
        known.IMAGE_VALUES,
        {"model": "x"},
        files=frozenset({"image", "mask"}),
    ),
    "responses": Endpoint(
        response_create_params.ResponseCreateParamsStreaming,
        ResponseBody,
        response_after_another,
        known.RESPONSES,
        RESPONSE_VALUES,
        {"input": "x", "model": "x", "tools": FLAT_TOOLS},
        {
            "input[message].content[input_image]": {"image_url": IMAGE[0]},
            "input[function_call_output]": {"call_id": "x"},
            "input[function_call_output].output[input_image]": {"image_url": IMAGE[0]},
            "input[custom_tool_call_output].output[input_image]": {"image_url": IMAGE[0]},
        },
    ),
    "messages": Endpoint(
        message_create_params.MessageCreateParamsStreaming,
        MessagesBody,
        message_after_another,
        known.MESSAGES,
        known.MESSAGE_VALUES,
        {"messages": [{"role": "user", "content": "x"}], "tools": MESSAGE_TOOLS, "max_tokens": 9},
        known.MESSAGE_BESIDE,
    ),
    "batches": Endpoint(
        batch_create_params.BatchCreateParams,
        BatchBody,
        itself,
        known.BATCHES,
        {"output_expires_after.seconds": (3600, 7200)},
        beside={"output_expires_after": {"seconds": 3600}},
    ),
    "api/chat": Endpoint(
        ollama._types.ChatRequest,
        chat_request.OllamaChatBody,
        chat_request.chat_to_job,
        known.OLLAMA_CHAT,
        {
            **known.OLLAMA_VALUES,
            "messages": ([{"role": "user", "content": "x"}], [{"role": "user", "content": "y"}]),
        },
        {"messages": [{"role": "user", "content": "x"}]},
        {"tools[]": {"function": {"name": "x"}}, "tools[].function": {"name": "x"}},
    ),
    "api/generate": Endpoint(
        theirs.GenerateRequest,
        chat_request.GenerateBody,
        chat_request.generate_to_job,
        known.OLLAMA_GENERATE,
        known.OLLAMA_VALUES,
        {"prompt": "x"},
    ),
    "api/embed": Endpoint(
        theirs.EmbedRequest,
        embed.EmbedBody,
        embed.to_embed_job,
        known.OLLAMA_EMBED,
        known.OLLAMA_VALUES,
    ),
    "api/embeddings": Endpoint(
        theirs.EmbeddingsRequest,
        embed.EmbeddingsBody,
        embed.to_embed_job,
        known.OLLAMA_EMBEDDINGS,
        known.OLLAMA_VALUES,
        {"prompt": "x"},
    ),
    "api/pull": Endpoint(
        theirs.PullRequest, model_responses.PullBody, model_responses.to_pull, known.OLLAMA_PULL
    ),
    "api/create": Endpoint(
        theirs.CreateRequest,
        model_responses.CreateBody,
        model_responses.to_create,
        known.OLLAMA_CREATE,
        known.OLLAMA_VALUES,
        {"from": "x"},
    ),
    "api/show": Endpoint(theirs.ShowRequest, models.ShowBody, models.to_show, known.OLLAMA_SHOW),
    "api/delete": Endpoint(
        theirs.DeleteRequest, models.DeleteBody, models.to_delete, known.OLLAMA_SHOW
    ),
    "api/copy": Endpoint(theirs.CopyRequest, models.CopyBody, models.to_copy, known.OLLAMA_COPY),
}


def _covers(name: str, path: str) -> bool:
    """Whether a name tells of a field: of itself, of what it is part of, or of a part of it."""
    shorter, longer = sorted((name, path), key=len)
    return longer == shorter or (longer.startswith(shorter) and longer[len(shorter)] in ".[")


def observed(endpoint: Endpoint, each: Field) -> set[str]:
    """What becomes of a field, by what comes of bodies that differ in nothing else."""
    outcomes = [endpoint.outcome(body) for body in each.bodies]
    good = [outcome for outcome in outcomes if outcome is not None]
    if not good:
        return {REFUSED}
    without = endpoint.outcome(each.without)
    requests = {request for request, _ in (*good, *([without] if without else ()))}
    plain = [TAG.sub("[]", name) for _, names in good for name in names]
    told = [_covers(name, each.told) for name in plain]
    found = {PASSED} if len(requests) > 1 else set()
    return found | ({NAMED} if any(told) else set()) or {ANSWER}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_field_of_a_client_meets_the_fate_that_the_table_tells(name: str) -> None:
    endpoint = ENDPOINTS[name]
    walked = endpoint.walked
    undecided = sorted({each.path for each in walked if endpoint.fate(each.path) is None})
    wrong = {
        each.path: (endpoint.fate(each.path), observed(endpoint, each))
        for each in walked
        if endpoint.fate(each.path) not in {None, *observed(endpoint, each)}
    }

    assert walked
    assert undecided == []
    assert wrong == {}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_the_table_knows_no_field_that_no_client_has(name: str) -> None:
    endpoint = ENDPOINTS[name]
    paths = [each.path for each in endpoint.walked]
    stale = [
        path
        for path in endpoint.fates
        if path not in paths and not any(each.startswith(path) for each in paths)
    ]

    assert stale == []


def test_every_field_of_an_upload_is_one_of_the_form() -> None:
    walked = {
        each.path.replace(".", "[") + "]" * ("." in each.path)
        for each in fields(file_create_params.FileCreateParams, {}, {})
    }

    assert walked == {field.alias or name for name, field in FileForm.model_fields.items()}


def test_every_request_of_ollamas_client_is_in_the_table_or_has_no_route_here() -> None:
    requests = {
        name
        for name, kind in vars(theirs).items()
        if name.endswith("Request") and not name.startswith("Base") and isinstance(kind, type)
    }
    tested = {each.theirs.__name__ for each in ENDPOINTS.values()}

    assert requests - tested == {"PushRequest", *known.NOT_SERVED}
