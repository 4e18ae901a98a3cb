"""Images inside a request, as a data URL or base64: type and data. Does no I/O."""

import re
from typing import Final, NamedTuple

from contract.errors import InvalidRequest, NotSupported
from contract.images import mime_type


class InlineImage(NamedTuple):
    """The type and the base64 of an image."""

    mime_type: str
    data: str
    """Base64 of its bytes."""


_WORD: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,31}")


def told_type(format: str | None) -> str | None:
    """The MIME type of a format that a backend names, as in `png`; None for what is no word."""
    is_word = format is not None and _WORD.fullmatch(format)
    return f"image/{format}" if is_word else None


def inline(image: str, where: str) -> InlineImage:
    """The image of a data URL or of plain base64; `where` names the field in errors.

    Raises NotSupported for an http(s) URL, InvalidRequest for a data URL that is not base64.
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
