"""POST /v1/images/generations and /edits: the bodies, and the request that they mean. Pure.

Source: openai/openai-openapi, CreateImageRequest and CreateImageEditRequest. `negative_prompt`,
`seed`, `steps`, `guidance` and `strength` are ours, for backends that are not OpenAI.
"""

import re
from typing import Annotated, Any, Final, Literal

from typing_extensions import override

from api_shim.openai.request_fields import Asked, made, unsupported, wrong
from api_shim.submission.ignored_fields import LeftAlone
from contract.images import LEAST_PIXELS, MOST_PIXELS, ImageRequest

_SIZE: Final = re.compile(r"^([0-9]{1,9})x([0-9]{1,9})$")
_PARTIAL: Final = 3


class ImageBody(Asked):
    """What an image is to show, and how."""

    prompt: str
    n: int | None = None
    size: str | None = None
    """`<width>x<height>` in pixels, or `auto`."""
    response_format: str | None = None
    """b64_json: images are not kept anywhere that an address could lead to."""
    output_format: Literal["png", "jpeg", "webp"] | None = None
    background: Annotated[str | None, LeftAlone(unless=("auto",))] = None
    quality: Annotated[str | None, LeftAlone(unless=("auto",))] = None
    """Left to the backend."""
    partial_images: int | None = None
    """Previews to stream, where the backend has them."""
    stream: bool | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    """How far an edit goes from its image, 0 to 1."""

    @property
    @override
    def unused(self) -> tuple[str, ...]:
        """Previews are only told in a stream."""
        return () if self.stream else ("partial_images",)


def to_image(body: ImageBody, *, image: str | None = None, mask: str | None = None) -> ImageRequest:
    """The request; `image` and `mask` are base64. Raises Refusal for what cannot be done."""
    if body.response_format not in {None, "url", "b64_json"}:
        raise wrong("response_format", "it is b64_json")
    if body.response_format == "url":
        raise unsupported("response_format", "images are not kept here: ask for b64_json")
    if body.background == "transparent":
        raise unsupported("background", "no backend is known to leave it transparent")
    previews = body.partial_images if body.stream else None
    return made(
        ImageRequest,
        body,
        prompt=body.prompt,
        image=image,
        mask=mask,
        count=body.n,
        mime_type=body.output_format and f"image/{body.output_format}",
        partial_images=None if previews is None else min(previews, _PARTIAL),
        negative_prompt=body.negative_prompt,
        seed=body.seed,
        steps=body.steps,
        guidance=body.guidance,
        strength=body.strength,
        **_size(body.size),
    )


def _size(size: str | None) -> dict[str, Any]:
    if size in {None, "", "auto"}:
        return {}
    found = _SIZE.match(size or "")
    if found is None:
        raise wrong("size", "it is auto, or looks like 1024x1024")
    width, height = int(found[1]), int(found[2])
    if not all(LEAST_PIXELS <= side <= MOST_PIXELS for side in (width, height)):
        raise wrong(
            "size",
            f"width and height are {LEAST_PIXELS} to {MOST_PIXELS} pixels each, not {size}",
        )
    return {"width": width, "height": height}
