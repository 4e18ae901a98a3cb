"""Model lists of OpenAI-shaped servers as `ModelReport`s. Does no I/O.

Sources: llama.cpp GET /props and /v1/models, LM Studio GET /api/v1/models, vLLM GET /v1/models.
"""

from collections.abc import Iterator, Sequence
from typing import Any

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


def vllm(listing: dict[str, Any], *, embeds: bool) -> list[ModelReport]:
    """Models of vLLM: all are in memory; tools and vision are not reported."""
    traits: tuple[ModelTrait, ...] = ("embed",) if embeds else ("chat", "schema")
    return [
        ModelReport(
            name=str(item["id"]),
            traits=traits,
            lacks=("chat",) if embeds else (),
            warm=True,
            context_length=item.get("max_model_len"),
        )
        for item in _items(listing)
    ]


def llamacpp(
    listing: dict[str, Any], props: dict[str, Any], dimension: int | None
) -> list[ModelReport]:
    """Models of llama-server; `dimension` if it embeds. A router reports `status`."""
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
