"""Makes text of others safe to print: a terminal obeys the control characters in it.

Covers C0, DEL, C1, line and paragraph separators, all that changes the direction of text (marks,
embeddings, overrides, isolates, and deprecated format characters), and lone surrogates, which
cannot be encoded. Pure.
"""

import re
from typing import Final

_CONTROL: Final = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u206f\\ud800-\\udfff]"
)
_KEPT: Final = "\n\t"
_RAW_IN_JSON: Final = re.compile("[\\x7f-\\x9f\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u206f]")


def visible(text: str, kept: str = _KEPT) -> str:
    r"""The text with each control character as `\x1b` or `\u202e`, but for those `kept`."""
    return _CONTROL.sub(lambda found: _shown(found[0], kept), text)


def visible_json(text: str) -> str:
    """The same JSON with the control characters escaped that it may hold raw."""
    return _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _shown(character: str, kept: str) -> str:
    if character in kept:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004 - as repr does
