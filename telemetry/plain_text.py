"""Text that may be shown: without secrets, and without characters that control a terminal.

Tenants do not read the addresses of backends either: an error says its URL, its host and port, the
address that a name stands for. Who uses a backend needs its name and what went wrong.
"""

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

_SECRETS: Final = (
    (re.compile(r"(?<=://)[^/@\s]+@"), ""),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\b(?:sk|pk|rk|gsk|hf|xai)[-_][\w*-]{6,}"), "***"),
    (re.compile(r"\b(?:AIza|ya29\.)[\w.-]{6,}"), "***"),
    (re.compile(r"(?i)\b(key|token|api_key)=[^&\s]+"), r"\1=***"),
)
_SHORTEST: Final = 4
"""Characters; a shorter secret would hide words that have nothing to do with it."""
_SHORTEST_CODED: Final = 8
"""The same of a secret in base64: three letters make four, which are in many a word."""
_ESCAPE: Final = re.compile("%[0-9A-F]{2}")
_HINTS: Final = re.compile(
    r"://|bearer|basic|(?:sk|pk|rk|hf|xai)[-_]|AIza|ya29\.|(?:key|token)=", re.IGNORECASE
)
"""One of these is in every text that holds a secret of `_SECRETS`."""
_CONTROLS: Final = re.compile(
    # C0 and C1, line and paragraph separators, and marks that change the direction of text.
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]"
)
_RAW_IN_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")
_SOCKET: Final = r" ?\(\s*'[^'\s]{1,255}',\s*\d{1,5}(?:,\s*\d+,\s*\d+)?\s*\)"
"""A socket's address as Python writes it: `('10.0.0.5', 11434)`."""


def known_secrets(given: Iterable[SecretStr | None]) -> tuple[str, ...]:
    """What `redacted` should replace: keys, and of URLs the password."""
    found: set[str] = set()
    for secret in given:
        value = secret.get_secret_value() if secret else ""
        if "://" in value:
            value = urlsplit(value).password or ""
        found |= {value, unquote(value)}
    return tuple(value for value in found if len(value) >= _SHORTEST)


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Secrets as `redacted` should get them: as they are and as servers echo them, longest first.

    That is in base64 (both alphabets, with and without padding), and all of these percent-encoded.
    """
    found: set[str] = set()
    for secret in filter(None, secrets):
        forms = {secret}
        for encode in (b64encode, urlsafe_b64encode):
            coded = encode(secret.encode(errors="replace")).decode()
            if len(coded) >= _SHORTEST_CODED:
                forms |= {coded, coded.rstrip("=")}
        quoted = {quote(form, safe, errors="replace") for form in forms for safe in ("", "/")}
        lower = {_ESCAPE.sub(lambda escape: escape[0].lower(), form) for form in quoted}
        found |= forms | quoted | lower
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without `secrets` and without anything that looks like a key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    if (text.isalnum() and "AIza" not in text) or _HINTS.search(text) is None:
        return text
    for pattern, substitute in _SECRETS:
        text = pattern.sub(substitute, text)
    return text


def escaped(text: str) -> str:
    r"""The text in one line: control characters are written as `\n`, `\x1b` or `\u202e`."""
    if _CONTROLS.search(text) is None:
        return text
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def escaped_json(text: str) -> str:
    r"""The same JSON with the control characters as `\u009b` that it may hold as they are."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_addresses(text: str, addresses: Iterable[str], name: str) -> str:
    """The text with `name` in place of these addresses, which are URLs, paths, or neither."""
    return _pattern(tuple(addresses)).sub(lambda found: _shown(found[0], name), text)


def _shown(found: str, name: str) -> str:
    return "" if found.lstrip().startswith("(") else name


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
