"""What a caller asks of an image model."""

from typing import Annotated, Final, Literal

from pydantic import Field

from contract.images_m_image_urls import GivenImage
from contract.models import ModelName
from contract.requests import Request

LEAST_PIXELS: Final = 16
MOST_PIXELS: Final = 8192
"""Of a side of an image."""


class ImageRequest(Request):
    """Make images from words, or from words and an image; the answer is `image` events."""

    kind: Literal["image"] = "image"
    model: ModelName
    prompt: Annotated[str, Field(min_length=1)]
    negative_prompt: str = ""
    image: GivenImage | None = None
    """Base64 (or a data URL) of the image to start from; without it, from noise."""
    mask: GivenImage | None = None
    """Base64 (or a data URL) of a PNG of the image's size: where it is transparent, `image` is
    made anew, the rest stays."""
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    """How far to go from `image`: 0 keeps it, 1 forgets it."""
    width: Annotated[int, Field(ge=LEAST_PIXELS, le=MOST_PIXELS)] = 512
    height: Annotated[int, Field(ge=LEAST_PIXELS, le=MOST_PIXELS)] = 512
    count: Annotated[int, Field(ge=1, le=10)] = 1
    steps: Annotated[int, Field(ge=1, le=500)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """How strictly to keep to the prompt (the cfg scale)."""
    seed: int | None = None
    mime_type: Literal["image/png", "image/jpeg", "image/webp"] = "image/png"
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    """Previews to show of each image while it is made, where the backend streams them."""
