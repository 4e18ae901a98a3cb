"""Text for tenants: without the addresses of backends, which only admins may see.

An error of a backend says where that is: its URL, its host and port, the address that a name stands
for. Those who use a backend need its name and what went wrong.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

_SOCKET: Final = r"\(\s*'[^'\s]{1,255}',\s*\d{1,5}(?:,\s*\d+,\s*\d+)?\s*\)"
"""A socket's address as Python writes it: `('10.0.0.5', 11434)`."""


def without_addresses(text: str, addresses: Iterable[str], name: str) -> str:
    """The text with `name` in place of these addresses, which are URLs, paths, or neither."""
    return _pattern(tuple(addresses)).sub(lambda found: _shown(found[0], name), text)


def _shown(found: str, name: str) -> str:
    return "" if found.startswith("(") else name


@lru_cache(256)
def _pattern(addresses: tuple[str, ...]) -> re.Pattern[str]:
    words = {word for address in addresses for word in _words(address)}
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    # Not inside of a longer name, in which the address is another one.
    named = [rf"(?<![\w.-]){re.escape(word)}(?![\w-]|\.\w)" for word in longest_first]
    return re.compile("|".join([*named, _SOCKET]), re.IGNORECASE)


def _words(address: str) -> Iterator[str]:
    """What a text may say of an address, the address itself included."""
    if address.startswith("/"):
        yield address
        return
    if "://" not in address:
        return
    parts = urlsplit(address)
    yield address
    yield f"{parts.scheme}://{parts.netloc}"
    yield parts.netloc
    if parts.hostname:
        yield parts.hostname
