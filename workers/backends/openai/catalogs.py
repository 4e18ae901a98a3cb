"""Model lists of OpenAI-shaped servers as `ModelReport`s. Does no I/O.

Sources: llama.cpp GET /props and /v1/models, LM Studio GET /api/v1/models, vLLM GET /v1/models.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from contract.roster import ModelReport, ModelTrait


def plain(listing: dict[str, Any]) -> list[ModelReport]:
    """Reports with names only."""
    return [ModelReport(name=str(item["id"])) for item in _items(listing)]


def by_name(listing: dict[str, Any]) -> list[ModelReport]:
    """Reports with traits derived from OpenAI's model names."""
    return [_by_name(str(item["id"])) for item in _items(listing)]


def _by_name(name: str) -> ModelReport:
    traits = _traits_of_name(name)
    return ModelReport(
        name=name, traits=traits, lacks=("chat",) if traits in {("embed",), ("image",)} else ()
    )


def vllm(listing: dict[str, Any], pooling: ModelTrait | None) -> list[ModelReport]:
    """Models of vLLM: all are in memory; tools and vision are not reported.

    `pooling` is what a pooling model does. One that embeds scores, too: by cosine.
    """
    traits: tuple[ModelTrait, ...] = (pooling,) if pooling else ("chat", "schema")
    lacks: dict[ModelTrait | None, tuple[ModelTrait, ...]] = {
        None: ("rerank",), "embed": ("chat",), "rerank": ("chat", "embed"),
    }  # fmt: skip
    return [
        ModelReport(
            name=str(item["id"]),
            traits=traits,
            lacks=lacks[pooling],
            warm=True,
            context_length=item.get("max_model_len"),
        )
        for item in _items(listing)
    ]


def vllm_task(paths: Collection[str]) -> ModelTrait | None:
    """What a pooling model does, by the paths of its server; None for a model that chats."""
    if "/v1/chat/completions" in paths:
        return None
    if "/v1/embeddings" in paths:
        return "embed"
    return "rerank" if "/score" in paths or "/rerank" in paths else None


_ENCODER_TRAITS: Final[Mapping[str, ModelTrait]] = {
    "embed": "embed", "embedding": "embed", "rerank": "rerank", "reranker": "rerank",
}  # fmt: skip
"""Traits by the words of Infinity and TEI."""


def infinity(listing: dict[str, Any]) -> list[ModelReport]:
    """Models of Infinity, by their capabilities."""
    return [
        _encoder(str(item["id"]), [str(it) for it in item.get("capabilities") or ()])
        for item in _items(listing)
    ]


def tei(info: dict[str, Any]) -> ModelReport:
    """The model of TEI; `model_type` is `{"embedding": {...}}` or `{"reranker": {...}}`."""
    given = info.get("model_type") or ()
    words = [given] if isinstance(given, str) else [str(word) for word in given]
    report = _encoder(str(info.get("model_id") or "tei"), words)
    return report.model_copy(update={"context_length": info.get("max_input_length")})


def _encoder(name: str, words: Iterable[str]) -> ModelReport:
    traits = [_ENCODER_TRAITS[word.lower()] for word in words if word.lower() in _ENCODER_TRAITS]
    lacks = [trait for trait in ("embed", "rerank") if traits and trait not in traits]
    return ModelReport(name=name, traits=tuple(traits), lacks=("chat", *lacks), warm=True)


def llamacpp(
    listing: dict[str, Any], props: dict[str, Any], dimension: int | None, *, reranks: bool = False
) -> list[ModelReport]:
    """Models of llama-server; `dimension` if it embeds. A router reports `status`."""
    if reranks:
        return [
            report.model_copy(
                update={"traits": ("rerank",), "lacks": ("chat", "embed"), "dimension": None}
            )
            for report in llamacpp(listing, props, dimension)
        ]
    return [_llamacpp(item, props, dimension) for item in _items(listing)]


def _llamacpp(item: dict[str, Any], props: dict[str, Any], dimension: int | None) -> ModelReport:
    meta, status = item.get("meta") or {}, item.get("status") or {}
    settings = props.get("default_generation_settings") or {}
    if status:
        return ModelReport(name=str(item["id"]), warm=status.get("value") in {"loaded", "sleeping"})
    traits: list[ModelTrait] = ["embed"] if dimension else ["chat", "schema"]
    modalities = props.get("modalities") or {}
    if modalities.get("vision"):
        traits.append("vision")
    if (props.get("chat_template_caps") or {}).get("supports_tools") and not dimension:
        traits.append("tools")
    return ModelReport(
        name=str(item["id"]),
        traits=tuple(traits),
        lacks=tuple(_lacks_of_llamacpp(modalities, is_embedding=bool(dimension))),
        warm=not props.get("is_sleeping"),
        context_length=settings.get("n_ctx") or meta.get("n_ctx"),
        dimension=dimension,
        size_bytes=meta.get("size"),
    )


def _lacks_of_llamacpp(modalities: dict[str, Any], *, is_embedding: bool) -> Iterator[ModelTrait]:
    """Tools are never lacking: llama.cpp has a generic format for templates without them."""
    if is_embedding:
        yield "chat"
    yield "rerank"
    if modalities and not modalities.get("vision"):
        yield "vision"


def lmstudio(listing: dict[str, Any]) -> list[ModelReport]:
    """Models of GET /api/v1/models; the context length is that of a loaded instance."""
    return [_lmstudio(item) for item in listing.get("models") or () if item.get("key")]


def _lmstudio(item: dict[str, Any]) -> ModelReport:
    capabilities, loaded = item.get("capabilities") or {}, item.get("loaded_instances") or ()
    traits: list[ModelTrait] = ["embed"] if item.get("type") == "embedding" else ["chat", "schema"]
    traits += ["vision"] if capabilities.get("vision") else []
    traits += ["tools"] if capabilities.get("trained_for_tool_use") else []
    traits += ["thinking"] if capabilities.get("reasoning") else []
    given = ((loaded[0].get("config") or {}) if loaded else {}).get("context_length")
    return ModelReport(
        name=item["key"],
        traits=tuple(traits),
        lacks=tuple(_lacks_of_lmstudio(item, traits)),
        warm=bool(loaded),
        context_length=given or item.get("max_context_length"),
        size_bytes=item.get("size_bytes"),
    )


def _lacks_of_lmstudio(item: dict[str, Any], traits: Sequence[ModelTrait]) -> list[ModelTrait]:
    """Tools are never lacking: they work with models that were not trained for them."""
    lacks: list[ModelTrait] = ["chat"] if item.get("type") == "embedding" else ["embed"]
    capabilities = item.get("capabilities") or {}
    return lacks + (["vision"] if "vision" in capabilities and "vision" not in traits else [])


def _items(listing: dict[str, Any]) -> Sequence[dict[str, Any]]:
    return [item for item in listing.get("data") or () if isinstance(item, dict) and "id" in item]


def _traits_of_name(name: str) -> tuple[ModelTrait, ...]:
    if "embedding" in name:
        return ("embed",)
    if name.startswith(("gpt-image", "dall-e", "chatgpt-image")):
        return ("image",)
    if any(word in name for word in ("whisper", "tts", "transcribe", "moderation", "sora")):
        return ()
    traits: list[ModelTrait] = ["chat"]
    traits += ["tools", "schema"] if name.startswith(("gpt-", "o1", "o3", "o4")) else []
    traits += ["vision"] if name.startswith(("gpt-4o", "gpt-4.", "gpt-5", "o3", "o4")) else []
    traits += ["thinking"] if name.startswith(("gpt-5", "o1", "o3", "o4")) else []
    return tuple(traits)
