"""What Gemini and Vertex tell of their models: pure readers of their lists.

Gemini tells methods, limits and thinking; that its models see, call tools and keep to a schema is
told by nothing but their names. Vertex tells names.
"""

from typing import Any

from contract.roster import ModelReport, ModelTrait

_SILENT = ("tts", "-live", "native-audio", "veo", "lyria", "robotics", "computer-use")
"""Words in names of models that do not answer a chat with words."""


def gemini(item: dict[str, Any]) -> ModelReport:
    """An item of GET /models."""
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
    """An item of GET publishers/google/models: `publishers/google/models/<name>`."""
    return by_name(str(item.get("name")).rpartition("/")[2])


def by_name(name: str) -> ModelReport:
    """What the name of one of Google's models tells."""
    if "embedding" in name:
        return ModelReport(name=name, traits=("embed",))
    return ModelReport(name=name, traits=_chat_traits(name) if "gem" in name else ())


def _chat_traits(name: str) -> tuple[ModelTrait, ...]:
    if any(word in name for word in _SILENT):
        return ()
    if "image" in name:
        return ("image", "chat", "vision")
    return ("chat", "vision", "tools", "schema") if name.startswith("gemini") else ("chat",)
