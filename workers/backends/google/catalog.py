"""Model lists of Gemini and Vertex as `ModelReport`s. Does no I/O.

Gemini reports methods, limits and thinking; vision, tools and schemas are derived from model
names. Vertex reports names only.
"""

from typing import Any

from contract.roster import ModelReport, ModelTrait

_NOT_CHAT = ("tts", "-live", "native-audio", "veo", "lyria", "robotics", "computer-use")
"""Parts of names of models that do not generate text."""


def gemini(item: dict[str, Any]) -> ModelReport:
    """The report of an item of GET /models."""
    name = str(item.get("name")).removeprefix("models/")
    methods = item.get("supportedGenerationMethods") or ()
    traits: list[ModelTrait] = []
    if "generateContent" in methods:
        traits += _chat_traits(name)
        traits += ["thinking"] if item.get("thinking") and "chat" in traits else []
    if "embedContent" in methods or "batchEmbedContents" in methods:
        traits.append("embed")
    return ModelReport(
        name=name,
        traits=tuple(traits),
        context_length=item.get("inputTokenLimit"),
        max_output_tokens=item.get("outputTokenLimit"),
    )


def vertex(item: dict[str, Any]) -> ModelReport:
    """The report of an item of GET publishers/google/models (`publishers/google/models/<name>`)."""
    return by_name(str(item.get("name")).rpartition("/")[2])


def by_name(name: str) -> ModelReport:
    """The report of a Google model, by its name alone."""
    if "embedding" in name:
        return ModelReport(name=name, traits=("embed",))
    return ModelReport(name=name, traits=_chat_traits(name) if "gem" in name else ())


def _chat_traits(name: str) -> tuple[ModelTrait, ...]:
    if any(word in name for word in _NOT_CHAT):
        return ()
    if "image" in name:
        return ("image", "chat", "vision")
    return ("chat", "vision", "tools", "schema") if name.startswith("gemini") else ("chat",)
