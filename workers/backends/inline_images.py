"""An image in a request, told apart into its type and its base64: pure, fetches nothing."""

from typing import Final, NamedTuple

from contract.errors import (
    InvalidRequest,
    NotSupported,
)

_MAGIC: Final = (
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("UklGR", "image/webp"),
    ("R0lGOD", "image/gif"),
)
"""How the base64 of an image of that type begins."""


class InlineImage(NamedTuple):
    """An image that travels inside a request."""

    mime_type: str
    data: str
    """Base64 of its bytes."""


def mime_type(data: str) -> str:
    """The type that the base64 of an image begins like; PNG if it is none that we know."""
    return next((mime for start, mime in _MAGIC if data.startswith(start)), "image/png")


def inline(image: str, where: str) -> InlineImage:
    """The image of a data URL or of plain base64; `where` names the field in an error.

    Raises NotSupported for an address, InvalidRequest for a data URL that is not base64.
    """
    if image.startswith(("http:", "https:")):
        raise NotSupported(f"{where}: this backend takes images as base64, not as URLs")
    if not image.startswith("data:"):
        return InlineImage(mime_type(image), image)
    head, comma, data = image.removeprefix("data:").partition(",")
    kind, _, encoding = head.partition(";")
    if not comma or not encoding.endswith("base64"):
        raise InvalidRequest(f"{where}: a data URL looks like data:image/png;base64,...")
    return InlineImage(kind or mime_type(data), data)
