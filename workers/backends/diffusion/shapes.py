"""Shapes of the answers of A1111's web UI and sd-server (rules: workers/backends/shapes.py).

Sources: stable-diffusion-webui `modules/api/models.py`; stable-diffusion.cpp
`examples/server/api.md`.
"""

from typing import Annotated, Final

from pydantic import BeforeValidator, WrapValidator, with_config
from typing_extensions import TypedDict

from workers.backends.shapes import (
    LENIENT,
    Count,
    Measure,
    Name,
    OptionalText,
    Shape,
    TextList,
    none_if_invalid,
    object_items,
)


@with_config(LENIENT)
class Checkpoint(TypedDict, total=False):
    """A model of A1111."""

    title: OptionalText
    model_name: OptionalText


@with_config(LENIENT)
class Checkpoints(TypedDict, total=False):
    """GET /sdapi/v1/sd-models."""

    data: Annotated[list[Checkpoint], BeforeValidator(object_items)]


@with_config(LENIENT)
class State(TypedDict, total=False):
    """GET /sdapi/v1/progress."""

    progress: Measure
    current_image: OptionalText


@with_config(LENIENT)
class ImagesResponse(TypedDict, total=False):
    """POST /sdapi/v1/txt2img or img2img; `info` is JSON in a string."""

    images: list[str] | None
    info: OptionalText


@with_config(LENIENT)
class Picture(TypedDict, total=False):
    """An image of sd-server."""

    b64_json: str | None


@with_config(LENIENT)
class Pictures(TypedDict, total=False):
    """The result of a job of sd-server."""

    images: list[Picture] | None
    output_format: OptionalText


@with_config(LENIENT)
class SdcppJob(TypedDict, total=False):
    """A job of sd-server."""

    id: Name | None
    status: str | None
    queue_position: Count
    result: Pictures | None


@with_config(LENIENT)
class Capabilities(TypedDict, total=False):
    """GET /sdcpp/v1/capabilities."""

    supported_modes: TextList
    output_formats_by_mode: Annotated[dict[str, TextList] | None, WrapValidator(none_if_invalid)]


CHECKPOINTS: Final = Shape(Checkpoints)
STATE: Final = Shape(State)
IMAGES: Final = Shape(ImagesResponse)
JOB: Final = Shape(SdcppJob)
CAPABILITIES: Final = Shape(Capabilities)
