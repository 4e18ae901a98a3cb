"""Shapes of the responses of OpenAI-shaped servers (rules: workers/backends/shapes.py).

Sources: openai/openai-openapi, with the extensions of vLLM, llama-server, LM Studio, llama-swap
and Mistral. Content may be a list of parts (mistralai/client-python, ContentChunk).
"""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WrapValidator, with_config
from typing_extensions import TypedDict

from workers.backends.logprobs import LogprobLists, TokenLogprob
from workers.backends.shapes import (
    LENIENT,
    Count,
    Measure,
    Name,
    Object,
    OptionalText,
    Shape,
    TextList,
    items_with,
    none_if_invalid,
    object_items,
)


@with_config(LENIENT)
class UsageDetails(TypedDict, total=False):
    """Parts of a token count."""

    cached_tokens: Count
    reasoning_tokens: Count


Detailed = Annotated[UsageDetails | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class UsageFields(TypedDict, total=False):
    """`usage` of OpenAI-shaped servers."""

    prompt_tokens: Count
    completion_tokens: Count
    input_tokens: Count
    output_tokens: Count
    prompt_tokens_details: Detailed
    completion_tokens_details: Detailed
    input_tokens_details: Detailed


Usage = Annotated[UsageFields | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class Function(TypedDict, total=False):
    """The function of a call; arguments are text, an object or null."""

    name: str | None
    arguments: str | dict[str, Any] | list[Any] | None


@with_config(LENIENT)
class Call(TypedDict, total=False):
    """A tool call, or a fragment of one."""

    id: Name | None
    index: Count
    function: Function | None


@with_config(LENIENT)
class Part(TypedDict, total=False):
    """A part of content; a thinking part may hold parts itself."""

    type: str
    text: str | None
    thinking: "str | list[Part | str] | None"
    refusal: str | None


Content = str | list[Part | str] | None


@with_config(LENIENT)
class Message(TypedDict, total=False):
    """A delta, or a whole message."""

    content: Content
    reasoning_content: Content
    reasoning: Content
    refusal: str | None
    tool_calls: list[Call] | None
    function_call: Function | None


@with_config(LENIENT)
class Choice(TypedDict, total=False):
    """A choice of a chunk."""

    delta: Message | None
    message: Message | None
    text: str | None
    finish_reason: OptionalText
    logprobs: LogprobLists | list[TokenLogprob] | None


@with_config(LENIENT)
class Chunk(TypedDict, total=False):
    """A chunk, or a whole answer, of /chat/completions and /completions."""

    choices: list[Choice] | None
    usage: Usage


@with_config(LENIENT)
class Meta(TypedDict, total=False):
    """`meta` of a listed model (llama-server, llama-swap)."""

    n_ctx: Count
    n_embd: Count
    size: Count
    llamaswap: "Annotated[Aliased | None, WrapValidator(none_if_invalid)]"


@with_config(LENIENT)
class Aliased(TypedDict, total=False):
    """Other names of a model."""

    aliases: TextList


@with_config(LENIENT)
class Status(TypedDict, total=False):
    """Load state of a model; `args` is the command line of its server."""

    value: OptionalText
    args: TextList


@with_config(LENIENT)
class Architecture(TypedDict, total=False):
    """Input and output modalities."""

    input_modalities: TextList
    output_modalities: TextList


@with_config(LENIENT)
class Listed(Aliased, total=False):
    """A model in a list."""

    id: Name
    owned_by: OptionalText
    meta: Annotated[Meta | None, WrapValidator(none_if_invalid)]
    status: Annotated[Status | None, WrapValidator(none_if_invalid)]
    architecture: Annotated[Architecture | None, WrapValidator(none_if_invalid)]
    capabilities: Object
    context_length: Count
    max_model_len: Count


@with_config(LENIENT)
class Listing(TypedDict, total=False):
    """GET /models."""

    data: Annotated[list[Listed], BeforeValidator(items_with("id"))]


@with_config(LENIENT)
class Settings(TypedDict, total=False):
    """Generation settings of llama-server."""

    n_ctx: Count


@with_config(LENIENT)
class Props(TypedDict, total=False):
    """GET /props of llama-server."""

    default_generation_settings: Annotated[Settings | None, WrapValidator(none_if_invalid)]
    modalities: Object
    chat_template_caps: Object


@with_config(LENIENT)
class Row(TypedDict, total=False):
    """A vector; `VectorRows` checks its numbers."""

    index: Count
    embedding: Any


@with_config(LENIENT)
class Embedded(TypedDict, total=False):
    """POST /embeddings."""

    data: list[Row] | None
    usage: Usage


@with_config(LENIENT)
class ImageItem(TypedDict, total=False):
    """An image of /images/generations."""

    b64_json: str | None
    url: str | None
    output_format: OptionalText


@with_config(LENIENT)
class ImageResponse(ImageItem, total=False):
    """POST /images/generations, or one event of its stream."""

    type: OptionalText
    data: list[ImageItem] | None
    usage: Usage


@with_config(LENIENT)
class Instance(TypedDict, total=False):
    """A loaded instance of a model (LM Studio)."""

    id: Name
    config: "Annotated[InstanceConfig | None, WrapValidator(none_if_invalid)]"


@with_config(LENIENT)
class InstanceConfig(TypedDict, total=False):
    """The configuration of an instance."""

    context_length: Count


@with_config(LENIENT)
class LmModel(TypedDict, total=False):
    """A model of LM Studio's own list."""

    key: Name
    type: OptionalText
    capabilities: Object
    loaded_instances: Annotated[list[Instance], BeforeValidator(items_with("id"))]
    max_context_length: Count
    size_bytes: Count


@with_config(LENIENT)
class LmListing(TypedDict, total=False):
    """GET /api/v1/models of LM Studio."""

    models: Annotated[list[LmModel], BeforeValidator(items_with("key"))]


@with_config(LENIENT)
class LmJob(TypedDict, total=False):
    """A load or a download of LM Studio."""

    job_id: Name | None
    status: OptionalText
    load_time_seconds: Measure
    total_size_bytes: Count
    downloaded_bytes: Count


@with_config(LENIENT)
class Running(TypedDict, total=False):
    """GET /running of llama-swap."""

    running: Annotated[list[dict[str, Any]], BeforeValidator(object_items)]


@with_config(LENIENT)
class Paths(TypedDict, total=False):
    """GET /openapi.json."""

    paths: Object


CHUNK: Final = Shape(Chunk)
LISTING: Final = Shape(Listing)
PROPS: Final = Shape(Props)
EMBEDDED: Final = Shape(Embedded)
IMAGES: Final = Shape(ImageResponse)
LM_LISTING: Final = Shape(LmListing)
LM_JOB: Final = Shape(LmJob)
RUNNING: Final = Shape(Running)
PATHS: Final = Shape(Paths)
