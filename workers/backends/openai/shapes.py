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
    ObjectList,
    OptionalText,
    Shape,
    TextList,
    TokenCount,
    items_with,
    none_if_invalid,
    object_items,
)


@with_config(LENIENT)
class OpenAIUsageDetails(TypedDict, total=False):
    """Parts of a token count."""

    cached_tokens: TokenCount
    reasoning_tokens: TokenCount


UsageDetails = Annotated[OpenAIUsageDetails | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class OpenAIUsageFields(TypedDict, total=False):
    """`usage` of OpenAI-shaped servers."""

    prompt_tokens: TokenCount
    completion_tokens: TokenCount
    input_tokens: TokenCount
    output_tokens: TokenCount
    prompt_tokens_details: UsageDetails
    completion_tokens_details: UsageDetails
    prompt_cache_hit_tokens: TokenCount  # DeepSeek
    input_tokens_details: UsageDetails


Usage = Annotated[OpenAIUsageFields | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class OpenAIFunction(TypedDict, total=False):
    """The function of a call; arguments are text, an object or null."""

    name: str | None
    arguments: str | dict[str, Any] | list[Any] | None


@with_config(LENIENT)
class OpenAIToolCall(TypedDict, total=False):
    """A tool call, or a fragment of one."""

    id: Name | None
    index: Count
    function: OpenAIFunction | None


@with_config(LENIENT)
class OpenAIPart(TypedDict, total=False):
    """A part of content; a thinking part may hold parts itself."""

    type: str
    text: str | None
    thinking: "str | list[OpenAIPart | str] | None"
    refusal: str | None


Content = str | list[OpenAIPart | str] | None


@with_config(LENIENT)
class OpenAIMessage(TypedDict, total=False):
    """A delta, or a whole message."""

    content: Content
    reasoning_content: Content
    reasoning: Content
    reasoning_details: ObjectList
    refusal: str | None
    tool_calls: list[OpenAIToolCall] | None
    function_call: OpenAIFunction | None


@with_config(LENIENT)
class OpenAIChoice(TypedDict, total=False):
    """A choice of a chunk."""

    delta: OpenAIMessage | None
    message: OpenAIMessage | None
    text: str | None
    finish_reason: OptionalText
    stop_reason: OptionalText
    matched_stop: OptionalText
    logprobs: LogprobLists | list[TokenLogprob] | None


@with_config(LENIENT)
class OpenAITimings(TypedDict, total=False):
    """`timings` of llama-server; `cache_n` are the tokens of the prompt that were in its cache."""

    cache_n: TokenCount


@with_config(LENIENT)
class OpenAIChunk(TypedDict, total=False):
    """A chunk, or a whole answer, of /chat/completions and /completions."""

    choices: list[OpenAIChoice] | None
    usage: Usage
    timings: Annotated[OpenAITimings | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class ModelMeta(TypedDict, total=False):
    """`meta` of a listed model (llama-server, llama-swap)."""

    n_ctx: Count
    n_embd: Count
    size: Count
    llamaswap: "Annotated[ModelAliases | None, WrapValidator(none_if_invalid)]"


@with_config(LENIENT)
class ModelAliases(TypedDict, total=False):
    """Other names of a model."""

    aliases: TextList


@with_config(LENIENT)
class ModelStatus(TypedDict, total=False):
    """Load state of a model; `args` is the command line of its server."""

    value: OptionalText
    args: TextList


@with_config(LENIENT)
class ModelArchitecture(TypedDict, total=False):
    """Input and output modalities."""

    input_modalities: TextList
    output_modalities: TextList


@with_config(LENIENT)
class OpenAIListedModel(ModelAliases, total=False):
    """A model in a list."""

    id: Name
    owned_by: OptionalText
    meta: Annotated[ModelMeta | None, WrapValidator(none_if_invalid)]
    status: Annotated[ModelStatus | None, WrapValidator(none_if_invalid)]
    architecture: Annotated[ModelArchitecture | None, WrapValidator(none_if_invalid)]
    capabilities: Object
    context_length: Count
    max_model_len: Count


@with_config(LENIENT)
class OpenAIModelsResponse(TypedDict, total=False):
    """GET /models."""

    data: Annotated[list[OpenAIListedModel], BeforeValidator(items_with("id"))]


@with_config(LENIENT)
class LlamaServerSettings(TypedDict, total=False):
    """Generation settings of llama-server."""

    n_ctx: Count


@with_config(LENIENT)
class LlamaServerProps(TypedDict, total=False):
    """GET /props of llama-server."""

    default_generation_settings: Annotated[
        LlamaServerSettings | None, WrapValidator(none_if_invalid)
    ]
    modalities: Object
    chat_template_caps: Object


@with_config(LENIENT)
class LlamaTemplated(TypedDict, total=False):
    """POST /apply-template of llama-server."""

    prompt: OptionalText


@with_config(LENIENT)
class TokenizedPrompt(TypedDict, total=False):
    """POST /tokenize of llama-server and vLLM."""

    tokens: list[Any] | None
    count: Count


@with_config(LENIENT)
class OpenAIVector(TypedDict, total=False):
    """A vector; `VectorRows` checks its numbers."""

    index: Count
    embedding: Any


@with_config(LENIENT)
class OpenAIEmbedResponse(TypedDict, total=False):
    """POST /embeddings."""

    data: list[OpenAIVector] | None
    usage: Usage


@with_config(LENIENT)
class ScoreUsage(OpenAIUsageFields, total=False):
    """`usage` of scores; some report only the sum."""

    total_tokens: TokenCount


@with_config(LENIENT)
class ScoresResponse(TypedDict, total=False):
    """POST /rerank and /score; `ScoreRows` checks the numbers."""

    results: list[dict[str, Any]] | None
    data: list[dict[str, Any]] | None
    usage: Annotated[ScoreUsage | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class ListedEncoder(TypedDict, total=False):
    """A model of Infinity's list."""

    id: Name
    capabilities: TextList


@with_config(LENIENT)
class EncoderList(TypedDict, total=False):
    """GET /models of Infinity."""

    data: Annotated[list[ListedEncoder], BeforeValidator(items_with("id"))]


@with_config(LENIENT)
class TeiInfo(TypedDict, total=False):
    """GET /info of TEI; `model_type` is an object with one key, or a word."""

    model_id: Name
    model_type: Annotated[dict[str, Any] | str | None, WrapValidator(none_if_invalid)]
    max_input_length: Count
    max_client_batch_size: Count
    version: OptionalText


@with_config(LENIENT)
class OpenAIImageItem(TypedDict, total=False):
    """An image of /images/generations."""

    b64_json: str | None
    url: str | None
    output_format: OptionalText


@with_config(LENIENT)
class OpenAIImageResponse(OpenAIImageItem, total=False):
    """POST /images/generations, or one event of its stream."""

    type: OptionalText
    data: list[OpenAIImageItem] | None
    usage: Usage


@with_config(LENIENT)
class LmStudioInstance(TypedDict, total=False):
    """A loaded instance of a model (LM Studio)."""

    id: Name
    config: "Annotated[LmStudioInstanceConfig | None, WrapValidator(none_if_invalid)]"


@with_config(LENIENT)
class LmStudioInstanceConfig(TypedDict, total=False):
    """The configuration of an instance."""

    context_length: Count


@with_config(LENIENT)
class LmStudioModel(TypedDict, total=False):
    """A model of LM Studio's own list."""

    key: Name
    type: OptionalText
    capabilities: Object
    loaded_instances: Annotated[list[LmStudioInstance], BeforeValidator(items_with("id"))]
    max_context_length: Count
    size_bytes: Count


@with_config(LENIENT)
class LmStudioModelList(TypedDict, total=False):
    """GET /api/v1/models of LM Studio."""

    models: Annotated[list[LmStudioModel], BeforeValidator(items_with("key"))]


@with_config(LENIENT)
class LmStudioJob(TypedDict, total=False):
    """A load or a download of LM Studio."""

    job_id: Name | None
    status: OptionalText
    load_time_seconds: Measure
    total_size_bytes: Count
    downloaded_bytes: Count


@with_config(LENIENT)
class LlamaSwapRunning(TypedDict, total=False):
    """GET /running of llama-swap."""

    running: Annotated[list[dict[str, Any]], BeforeValidator(object_items)]


@with_config(LENIENT)
class OpenApiPaths(TypedDict, total=False):
    """GET /openapi.json."""

    paths: Object


CHUNK: Final = Shape(OpenAIChunk)
MODEL_LIST: Final = Shape(OpenAIModelsResponse)
PROPS: Final = Shape(LlamaServerProps)
EMBEDDINGS: Final = Shape(OpenAIEmbedResponse)
SCORES: Final = Shape(ScoresResponse)
ENCODER_LIST: Final = Shape(EncoderList)
TEI_INFO: Final = Shape(TeiInfo)
IMAGES: Final = Shape(OpenAIImageResponse)
TEMPLATED: Final = Shape(LlamaTemplated)
TOKENIZED: Final = Shape(TokenizedPrompt)
LM_STUDIO_MODEL_LIST: Final = Shape(LmStudioModelList)
LM_STUDIO_JOB: Final = Shape(LmStudioJob)
RUNNING: Final = Shape(LlamaSwapRunning)
PATHS: Final = Shape(OpenApiPaths)
