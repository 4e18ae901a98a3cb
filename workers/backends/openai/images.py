"""Bodies and responses of OpenAI's /images/generations and /images/edits. Does no I/O.

Source: openai/openai-openapi. gpt-image models always return base64 and refuse
`response_format`; dall-e and self-hosted servers need it.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from contract.errors import InvalidRequest, ServerFault, TruncatedStream
from contract.events import Image, Usage
from contract.images import ImageRequest, mime_type
from workers.backends.http.client import EncodedBody
from workers.backends.inline_images import inline, told_type

_GPT_1: Final = ("1024x1024", "1536x1024", "1024x1536")
_SIZES: Final = {
    "gpt-image-1": _GPT_1,
    "chatgpt-image": _GPT_1,
    "dall-e-3": ("1024x1024", "1792x1024", "1024x1792"),
    "dall-e-2": ("1024x1024", "512x512", "256x256"),
}
"""Accepted sizes by model name prefix; other models accept any size, or refuse it themselves."""
_UNKNOWN: Final = ("negative_prompt", "strength", "steps", "guidance", "seed")
_PARTIAL: Final = ".partial_image"
_COMPLETED: Final = ".completed"


class OpenAIImageBody(NamedTuple):
    """The body (JSON, or a form), its Accept header, and the fields that it cannot express."""

    content: dict[str, Any] | EncodedBody
    accept: str
    ignored: tuple[str, ...]


class _FormFile(NamedTuple):
    """A file of a multipart form."""

    name: str
    content: bytes
    mime_type: str


def to_image(request: ImageRequest, dialect: str) -> OpenAIImageBody:
    """The body of /images/generations, or of /images/edits for a request with an image.

    Raises InvalidRequest for an image that is not base64.
    """
    given = request.model_fields_set
    ignored: list[str] = [name for name in _UNKNOWN if name in given]
    is_gpt = dialect == "openai" and not request.model.startswith("dall-e")
    size, is_other = _size(request, is_hosted=dialect == "openai")
    ignored += ["width", "height"] if is_other else []
    fields: dict[str, Any] = {"model": request.model, "prompt": request.prompt, "n": request.count}
    if size:
        fields["size"] = size
    if is_gpt:
        fields["output_format"] = request.mime_type.removeprefix("image/")
    else:
        fields["response_format"] = "b64_json"
        ignored += ["mime_type"] if request.mime_type != "image/png" else []
    streams = is_gpt and request.partial_images > 0
    if streams:
        fields |= {"stream": True, "partial_images": request.partial_images}
    elif request.partial_images:
        ignored.append("partial_images")
    accept = "text/event-stream" if streams else "application/json"
    content = _edit(fields, request.image, request.mask) if request.image else fields
    return OpenAIImageBody(content, accept, tuple(ignored))


class Images:
    """Reads a response, whole or in stream events, and counts the finished images."""

    def __init__(self, request: ImageRequest) -> None:
        """`request` gives the MIME type if the response has none."""
        self._mime_type = request.mime_type
        self._done = 0
        self._usage: dict[str, Any] = {}

    def read(self, item: Mapping[str, Any]) -> Iterator[Image]:
        """The images of a response, or of one stream event; raises ServerFault for an empty one."""
        self._usage = item.get("usage") or self._usage
        kind = str(item.get("type") or "")
        if kind.endswith(_PARTIAL):
            yield self._image(item, item, partial=True)
        elif kind.endswith(_COMPLETED):
            yield self._finished(item, item)
        elif "data" in item:
            for found in item["data"] or ():
                yield self._finished(found, item)

    def usage(self) -> Usage | None:
        """The usage in tokens, None if not reported; raises TruncatedStream without an image."""
        if not self._done:
            raise TruncatedStream("the answer ended without a finished image")
        if self._usage.get("input_tokens") is None and self._usage.get("output_tokens") is None:
            return None
        details = self._usage.get("input_tokens_details") or {}
        return Usage(
            prompt_tokens=self._usage.get("input_tokens") or 0,
            completion_tokens=self._usage.get("output_tokens") or 0,
            cached_tokens=details.get("cached_tokens") or 0,
        )

    def _finished(self, found: Mapping[str, Any], response: Mapping[str, Any]) -> Image:
        image = self._image(found, response, partial=False)
        self._done += 1
        return image

    def _image(
        self, found: Mapping[str, Any], response: Mapping[str, Any], *, partial: bool
    ) -> Image:
        data, url = found.get("b64_json"), found.get("url")
        if not (data or url):
            raise ServerFault("the backend answered an image without its bytes or address")
        kind = told_type(response.get("output_format"))
        return Image(
            index=self._done,
            mime_type=kind or (mime_type(data) if data else self._mime_type),
            data=data or None,
            url=None if data else url,
            partial=partial,
        )


def _size(request: ImageRequest, *, is_hosted: bool) -> tuple[str | None, bool]:
    """The size to send, and whether it differs from the requested one.

    None leaves it to the model: our default size is unknown to OpenAI's newer models.
    """
    requested = f"{request.width}x{request.height}"
    if not request.model_fields_set & {"width", "height"}:
        return (None if is_hosted else requested), False
    known = next((_SIZES[name] for name in _SIZES if request.model.startswith(name)), None)
    if known is None or requested in known:
        return requested, False

    def distance(size: str) -> tuple[float, int]:
        width, height = (int(part) for part in size.split("x"))
        ratio = abs(width / height - request.width / request.height)
        return ratio, abs(width - request.width)

    return min(known, key=distance), True


def _edit(fields: dict[str, Any], image: str, mask: str | None) -> EncodedBody:
    files = {"image": _file("image", image)}
    if mask:
        files["mask"] = _file("mask", mask)
    text_fields = {
        field: str(value).lower() if isinstance(value, bool) else str(value)
        for field, value in fields.items()
    }
    return _multipart(text_fields, files)


def _file(name: str, image: str) -> _FormFile:
    start = inline(image, name)
    try:
        content = base64.b64decode(start.data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{name}: not base64") from None
    return _FormFile(f"{name}.{start.mime_type.removeprefix('image/')}", content, start.mime_type)


def _multipart(fields: Mapping[str, str], files: Mapping[str, _FormFile]) -> EncodedBody:
    """The form as `multipart/form-data` (RFC 7578).

    The same input gives the same bytes. Field and file names are constants of this file and are not
    escaped.
    """
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'Content-Disposition: form-data; name="{name}"; filename="{file.name}"\r\n'
        f"Content-Type: {file.mime_type}\r\n\r\n".encode()
        + file.content
        for name, file in files.items()
    ]
    # No content contains its own digest.
    boundary = "form-" + hashlib.sha256(b"".join(parts)).hexdigest()[:40]
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"
    return EncodedBody(body, f"multipart/form-data; boundary={boundary}")
