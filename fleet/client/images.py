"""Pictures that a person sends along with words: files are read here, addresses are passed on."""

import base64
from collections.abc import Sequence
from pathlib import Path

from contract.chat import ImagePart, Message, Part, TextPart

_ADDRESSES = ("http://", "https://", "data:")


def picture(source: str) -> str:
    """A file's bytes in base64, or an address as it is; raises OSError."""
    if source.lower().startswith(_ADDRESSES):
        return source
    return base64.b64encode(Path(source).expanduser().read_bytes()).decode()


def spoken(words: str, pictures: Sequence[str]) -> Message:
    """A turn of the user's."""
    if not pictures:
        return Message(role="user", content=words)
    parts: list[Part] = [TextPart(text=words), *(ImagePart(image=each) for each in pictures)]
    return Message(role="user", content=tuple(parts))
