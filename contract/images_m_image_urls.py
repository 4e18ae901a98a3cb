"""What may stand for an image: base64 of its bytes, a data URL, or, in a message, an address. Pure.

Everything else is refused where it comes in, since backends would take its letters for base64.
"""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_HEAD: Final = 1000
"""Characters within which the head of a data URL ends."""
_INSTEAD: Final = "give base64, a data URL, or an http or https URL"
_LOOKS: Final = "a data URL looks like data:image/png;base64,..."


def normalized(image: str) -> str:
    """The image with the head of its URL in lower case; raises ValueError with the reason."""
    found = _SCHEME.match(image)
    if found is None:
        return image
    scheme = found.group(1).lower()
    rest = image[found.end() :]
    if scheme == "data":
        return _data_url(rest)
    if scheme not in {"http", "https"}:
        raise ValueError(f"{scheme[:20]} URLs are not fetched: {_INSTEAD}")
    return _address(f"{scheme}:{rest.rstrip()}")


def inline_only(image: str) -> str:
    """The same where no address will do; raises ValueError with the reason."""
    told = normalized(image)
    if told.startswith(("http:", "https:")):
        raise ValueError("give base64 or a data URL, not the address of an image")
    return told


def _data_url(rest: str) -> str:
    head, comma, _ = rest[:_HEAD].partition(",")
    if not comma or not head.lower().endswith("base64"):
        raise ValueError(_LOOKS)
    return f"data:{head.lower()}{rest[len(head) :]}"


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"the address is not a URL: {error}") from None
    if not host or not url.partition(":")[2].startswith("//"):
        raise ValueError("the address names no host")
    return url


ShownImage = Annotated[str, AfterValidator(normalized)]
"""An image in a message: base64, a data URL, or an http(s) URL."""
GivenImage = Annotated[str, AfterValidator(inline_only)]
"""An image to work on: base64 or a data URL."""
