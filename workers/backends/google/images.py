"""Images of Gemini's chat models (`responseModalities`), one per request. Does no I/O."""

from typing import Any, Final

from contract.errors import ServerFault
from contract.events import COUNTS, Image, Usage
from contract.images import ImageRequest
from workers.backends.google.chunks import GeminiChunks, usage
from workers.backends.google.requests import GeminiBody
from workers.backends.inline_images import inline, told_type

_RATIOS: Final = (
    "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9",
)  # fmt: skip
_UNKNOWN: Final = (
    "negative_prompt",
    "strength",
    "steps",
    "guidance",
    "mime_type",
    "partial_images",
)


def to_image(request: ImageRequest) -> GeminiBody:
    """The body of `:generateContent`; a size becomes the nearest aspect ratio."""
    parts: list[dict[str, Any]] = [{"text": request.prompt}]
    if request.image:
        start = inline(request.image, "image")
        parts.append({"inlineData": {"mimeType": start.mime_type, "data": start.data}})
    config: dict[str, Any] = {"responseModalities": ["IMAGE"]}
    if request.seed is not None:
        config["seed"] = request.seed
    given = request.model_fields_set
    if given & {"width", "height"}:
        config["imageConfig"] = {"aspectRatio": _ratio(request.width / request.height)}
    fields = {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
    return GeminiBody(fields, tuple(name for name in _UNKNOWN if name in given))


def from_image(answer: dict[str, Any], index: int) -> tuple[Image | str, Usage | None]:
    """The image, or the text of a refusal, and the usage; raises ServerFault without both."""
    spent = usage(answer.get("usageMetadata") or {})
    candidate: dict[str, Any] = (answer.get("candidates") or ({},))[0]
    for part in (candidate.get("content") or {}).get("parts") or ():
        # A thinking model also returns drafts.
        data = part.get("inlineData")
        if data and data.get("data") and not part.get("thought"):
            mime = told_type((data.get("mimeType") or "").removeprefix("image/")) or "image/png"
            return Image(index=index, mime_type=mime, data=data["data"]), spent
    delta = GeminiChunks().delta(answer)
    if delta is not None and delta.refusal:
        return delta.refusal, spent
    raise ServerFault("the model answered without an image")


def added(total: Usage | None, more: Usage | None) -> Usage | None:
    """The sum of two usages; None is unknown."""
    if total is None or more is None:
        return total or more
    return Usage(**{name: getattr(total, name) + getattr(more, name) for name in COUNTS})


def _ratio(requested: float) -> str:
    def distance(ratio: str) -> float:
        width, _, height = ratio.partition(":")
        return abs(int(width) / int(height) - requested)

    return min(_RATIOS, key=distance)
