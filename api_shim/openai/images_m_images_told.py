"""Images in OpenAI's words, whole and with previews as they come. Pure.

Source: openai/openai-openapi, ImagesResponse, ImageGen*Event and ImageEdit*Event: each event is
named, and what completes one image tells the tokens, which are known when the job is done.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic_core import from_json

from api_shim.http.problems import Problem
from api_shim.openai import sse
from api_shim.openai.errors import encoded
from api_shim.openai.response_head import Heading
from contract.events import Usage
from contract.events_m_frames import Frame
from contract.images import ImageRequest
from contract.result import Result

Family = Literal["image_generation", "image_edit"]


def whole(heading: Heading, request: ImageRequest, result: Result) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    finished = [image for image in result.images if not image.partial]
    return {
        "created": heading.created,
        "data": [{"b64_json": i.data} if i.data else {"url": i.url} for i in finished],
        "background": "opaque",
        "output_format": _format(finished[0].mime_type) if finished else None,
        "size": f"{request.width}x{request.height}",
        "quality": None,
        "usage": usage(result.usage),
    }


def usage(used: Usage | None) -> dict[str, Any] | None:
    """Tokens, as OpenAI counts them up; None of the many backends that count none."""
    if used is None:
        return None
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"text_tokens": used.prompt_tokens, "image_tokens": 0},
        "output_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def _format(mime_type: str) -> str:
    return mime_type.removeprefix("image/")


class ImageEvents:
    """Images as a stream of events."""

    media_type = sse.MEDIA_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, heading: Heading, request: ImageRequest, family: Family) -> None:
        """Tell this job's images."""
        self._created = heading.created
        self._size = f"{request.width}x{request.height}"
        self._family = family
        self._previews = 0
        self._held: dict[str, Any] | None = None
        """An image that is finished, and for all that is known the last one."""

    def tell(self, frames: Sequence[Frame]) -> bytes:
        """Their events."""
        told = b""
        for frame in frames:
            if frame.type == "image":
                told += self._image(from_json(frame.body))
            elif frame.type == "done":
                fields = from_json(frame.body).get("usage")
                told += self._finish(Usage.model_validate(fields) if fields else None)
        return told

    def fail(self, problem: Problem) -> bytes:
        """An event with an error, at which clients raise."""
        return b"event: error\ndata: %s\n\n" % encoded(problem)

    def _image(self, image: dict[str, Any]) -> bytes:
        told = self._finish(None)
        if not image.get("partial"):
            self._held = image
            return told
        index, self._previews = self._previews, self._previews + 1
        name = f"{self._family}.partial_image"
        fields = self._fields(name, image) | {"partial_image_index": index}
        return told + sse.named(name, fields)

    def _finish(self, used: Usage | None) -> bytes:
        image, self._held = self._held, None
        if image is None:
            return b""
        self._previews = 0
        name = f"{self._family}.completed"
        return sse.named(name, self._fields(name, image) | {"usage": usage(used)})

    def _fields(self, name: str, image: dict[str, Any]) -> dict[str, Any]:
        data = {"b64_json": image["data"]} if image.get("data") else {"url": image.get("url")}
        return {
            "type": name,
            **data,
            "created_at": self._created,
            "size": self._size,
            "quality": "auto",
            "background": "opaque",
            "output_format": _format(image.get("mime_type", "image/png")),
        }
