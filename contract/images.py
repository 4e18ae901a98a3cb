"""Image requests, and the validation of images in requests."""

import base64
import re
from collections.abc import Iterable
from string import ascii_letters, digits
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from contract.models import ModelName
from contract.requests import Request

_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_PLAIN: Final = (ascii_letters + digits + "+/").encode()
_DIGITS: Final = _PLAIN + b"-_"
_MOST_PADDING: Final = 2
_CONTROL: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
_SLICE_CHARS: Final = 2**20
"""Of an image, looked at in one go: other threads run in between."""
_IN_NO_HOST: Final = re.compile(r"[\s%<>^|\\\"`{}]")
LONGEST_ADDRESS: Final = 8192
"""Characters of an image's http or https URL."""
_HEAD: Final = 1000
"""Characters in which the head of a data URL must end."""
_FORMATS: Final = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM", re.DOTALL
)
"""First bytes of PNG, JPEG, GIF, WebP and BMP."""
_TYPES: Final = (
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("UklGR", "image/webp"),
    ("R0lGOD", "image/gif"),
    ("Qk", "image/bmp"),
)
"""Prefixes of the base64 of each type."""
_HEAD_DIGITS: Final = 16
"""Digits of base64 that hold the first 12 bytes."""
_INSTEAD: Final = "give base64, a data URL, or an http or https URL"
_LOOKS: Final = "a data URL looks like data:image/png;base64,..."


def normalized(image: str) -> str:
    """The image with the scheme of its URL in lower case; raises ValueError with the reason.

    A data URL gets the type of its bytes, whatever it said.
    """
    found = _SCHEME.match(image)
    if found is None:
        return image if _is_plain(image, 0) else "".join(_digits(image, 0))
    scheme = found.group(1).lower()
    if scheme == "data":
        return _data_url(image, found.end())
    if scheme not in {"http", "https"}:
        raise ValueError(f"{scheme[:20]} URLs are not fetched: {_INSTEAD}")
    return _address(f"{scheme}:{image[found.end() :].rstrip()}")


def labelled(media_type: str, data: str) -> str:
    """The data URL of base64 that came beside its type; raises ValueError with the reason."""
    _demand_picture(f"{media_type};base64")
    return _joined(_digits(data, 0))


def mime_type(data: str) -> str:
    """The MIME type by the first bytes of a base64 image; image/png if unknown."""
    return next((mime for start, mime in _TYPES if data.startswith(start)), "image/png")


def data_url(data: bytes | bytearray) -> str:
    """The data URL of an image's bytes; raises ValueError if they are of no known format."""
    if not _FORMATS.match(bytes(data[:12])):
        raise ValueError("it is no PNG, JPEG, GIF, WebP or BMP image")
    start = base64.b64encode(data[:12]).decode("ascii")
    head = f"data:{mime_type(start)};base64,".encode()
    return b"".join((head, base64.b64encode(data))).decode("ascii")


def inline_bytes(image: str) -> int:
    """The size of an image that is base64 or a data URL, about; 0 for one that is an address."""
    return 0 if image.startswith(("http:", "https:")) else len(image) * 3 // 4


def inline_only(image: str) -> str:
    """The same for inputs that must not be URLs of a server; raises ValueError with the reason."""
    found = normalized(image)
    if found.startswith(("http:", "https:")):
        raise ValueError("give base64 or a data URL, not the address of an image")
    return found


def _data_url(image: str, begin: int) -> str:
    """`begin` is behind the scheme."""
    head, comma, _ = image[begin : begin + _HEAD].partition(",")
    if not comma:
        raise ValueError(_LOOKS)
    _demand_picture(head)
    data = begin + len(head) + 1
    if _is_plain(image, data) and image.startswith(_prefix(image[data : data + _HEAD_DIGITS])):
        return image  # without a copy
    return _joined(_digits(image, data))


def _demand_picture(head: str) -> None:
    """Raise ValueError unless the head of a data URL tells of base64 of a picture."""
    media = head.lower()
    if not media.endswith("base64"):
        raise ValueError(_LOOKS)
    if not media.startswith(("image/", "application/octet-stream", ";")):
        raise ValueError(f"{media.partition(';')[0][:40]} is no image: {_LOOKS}")


def _joined(parts: list[str]) -> str:
    """The data URL of an image."""
    return "".join([_prefix(_start(parts)), *parts])


def _prefix(data: str) -> str:
    return f"data:{mime_type(data)};base64,"


def _start(parts: Iterable[str]) -> str:
    """The first digits, which tell what it is."""
    start = ""
    for part in parts:
        start += part[:_HEAD_DIGITS]
        if len(start) >= _HEAD_DIGITS:
            break
    return start[:_HEAD_DIGITS]


def _digits(text: str, begin: int) -> list[str]:
    """The text from a place on as plain base64, in parts: one line, padded, the usual alphabet.

    Only its beginning is decoded. Raises ValueError unless it is base64 of a known image format.
    """
    parts: list[str] = []
    count = padding = 0
    for at in range(begin, len(text), _SLICE_CHARS):
        part = "".join(text[at : at + _SLICE_CHARS].split())
        digits = part.rstrip("=")
        if (padding and digits) or not _are_digits(digits):
            raise ValueError(f"it is neither base64 nor a URL: {_INSTEAD}")
        padding += len(part) - len(digits)
        count += len(digits)
        parts.append(digits.replace("-", "+").replace("_", "/"))
    if not count:
        raise ValueError(f"it is neither base64 nor a URL: {_INSTEAD}")
    missing = -count % 4
    if padding not in {0, missing} or missing > _MOST_PADDING:
        raise ValueError(f"it is base64 of a wrong length: {_INSTEAD}")
    parts.append("=" * missing)
    _demand_format(_start(parts))
    return parts


def _is_plain(text: str, begin: int) -> bool:
    """Whether the text from a place on is what `_digits` would make of it.

    Raises ValueError unless it is of a known image format.
    """
    if len(text) == begin or (len(text) - begin) % 4:
        return False
    end = len(text) - (2 if text.endswith("==") else text.endswith("="))
    slices = (text[at : min(at + _SLICE_CHARS, end)] for at in range(begin, end, _SLICE_CHARS))
    if not all(_are_digits(each, _PLAIN) for each in slices):
        return False
    _demand_format(text[begin : begin + _HEAD_DIGITS])
    return True


def _demand_format(start: str) -> None:
    if not _FORMATS.match(base64.b64decode(start)):
        raise ValueError(f"it is no PNG, JPEG, GIF, WebP or BMP image: {_INSTEAD}")


def _are_digits(text: str, which: bytes = _DIGITS) -> bool:
    # Not a pattern: it has the interpreter to itself until it has read megabytes.
    return text.isascii() and not text.encode().translate(None, which)


def _address(url: str) -> str:
    # First of all: what urlsplit has parsed, it keeps for the next call.
    if len(url) > LONGEST_ADDRESS:
        raise ValueError(
            f"the address has {len(url)} characters, and may have {LONGEST_ADDRESS}: shorten it, "
            "or give the image itself"
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the address is not a URL") from None
    # urlsplit drops control characters, and accepts any character in a host.
    if _CONTROL.search(url):
        raise ValueError("the address has a control character in it")
    if "@" in parts.netloc:
        raise ValueError("the address has a user or a password in it: leave them out")
    if host and "[" not in parts.netloc and _IN_NO_HOST.search(host):
        raise ValueError(f"the host of the address cannot be {host[:60]!r}")
    if not host or not url.partition(":")[2].startswith("//"):
        raise ValueError("the address names no host")
    return url


ShownImage = Annotated[str, AfterValidator(normalized)]
"""An image in a message: base64, a data URL, or an http(s) URL."""
GivenImage = Annotated[str, AfterValidator(inline_only)]
"""An image to work on: base64 or a data URL."""


LEAST_PIXELS: Final = 16
MOST_PIXELS: Final = 8192
"""Of a side of an image."""


class ImageRequest(Request):
    """Make images from a prompt and optionally an image; the answer is `image` events."""

    kind: Literal["image"] = "image"
    model: ModelName
    prompt: Annotated[str, Field(min_length=1)]
    negative_prompt: str = ""
    image: GivenImage | None = None
    """Base64 (or a data URL) of the image to start from; default: noise."""
    mask: GivenImage | None = None
    """Base64 (or a data URL) of a PNG of the image's size: its transparent area is generated anew,
    the rest of `image` stays."""
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much to change `image`: 0 keeps it, 1 ignores it."""
    width: Annotated[int, Field(ge=LEAST_PIXELS, le=MOST_PIXELS)] = 512
    height: Annotated[int, Field(ge=LEAST_PIXELS, le=MOST_PIXELS)] = 512
    count: Annotated[int, Field(ge=1, le=10)] = 1
    steps: Annotated[int, Field(ge=1, le=500)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """How closely to follow the prompt (the cfg scale)."""
    seed: int | None = None
    mime_type: Literal["image/png", "image/jpeg", "image/webp"] = "image/png"
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    """Number of previews of each image, if the backend streams them."""
