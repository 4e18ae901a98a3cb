"""What a caller asks of an image model."""

from typing import Annotated, Literal

from pydantic import Field

from contract.models import ModelName
from contract.requests import Request


class ImageRequest(Request):
    """Make images from words, or from words and an image; the answer is `image` events."""

    kind: Literal["image"] = "image"
    model: ModelName
    prompt: Annotated[str, Field(min_length=1)]
    negative_prompt: str = ""
    image: str | None = None
    """Base64 of the image to start from; without it, from noise."""
    width: Annotated[int, Field(ge=16, le=8192)] = 512
    height: Annotated[int, Field(ge=16, le=8192)] = 512
    count: Annotated[int, Field(ge=1, le=10)] = 1
    steps: Annotated[int, Field(ge=1, le=500)] | None = None
    seed: int | None = None
