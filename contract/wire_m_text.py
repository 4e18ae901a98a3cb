r"""Text that cannot be written down: a lone surrogate, which JSON can spell and UTF-8 has not.

`"\ud83d"` is half of an emoji that somebody's program has cut in two. Python takes it as a letter,
and nothing that is sent, stored or shown can hold it.
"""

from typing import Any, Final

from contract.errors import InvalidRequest

_HOLDS_TEXT: Final = (str, dict, list, tuple)


def must_be_text(value: Any, where: str = "request") -> None:
    """Look through JSON-like data; raises InvalidRequest naming the field that is no text."""
    waiting = [(where, value)]
    while waiting:
        path, found = waiting.pop()
        if not isinstance(found, _HOLDS_TEXT):
            continue
        if isinstance(found, str):
            if not _is_text(found):
                raise InvalidRequest(
                    f"{path}: it holds a lone surrogate, half of a character that was cut in two, "
                    "which is no text: send whole characters"
                )
            continue
        inside = found.items() if isinstance(found, dict) else enumerate(found)
        for name, inner in inside:
            waiting.append((f"{path}, the name of a field", name))
            waiting.append((f"{path}.{written(name)}", inner))


def written(value: object) -> str:
    """Anything as words that can be sent: what is no text is spelt out, and cut at 80 letters."""
    return str(value)[:80].encode("utf-8", "backslashreplace").decode()


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
