"""Content in parts, as Mistral and others send it: which of it are words, and which are thoughts.

Source: mistralai/client-python, ContentChunk (`text`, `thinking`, `reference`, `image_url` ...);
the text of a thinking part is a list of parts again. Also `output_text`, `reasoning` and `refusal`,
as openai/openai-openapi names them.
"""

from typing import Final, NamedTuple

from contract.errors import BadAnswer
from workers.backends.openai.shapes import Content, Part

_THOUGHTS: Final = frozenset({"thinking", "reasoning", "reasoning_text"})
_WORDLESS: Final = frozenset({"reference"})
"""Parts that point at a source and say nothing."""


class Said(NamedTuple):
    """What a content says."""

    text: str
    thinking: str
    refusal: str


def said(content: Content, where: str) -> Said:
    """The words of a content at this path; raises BadAnswer for a part that is none of words."""
    if isinstance(content, str):
        return Said(content, "", "")
    text: list[str] = []
    thinking: list[str] = []
    refusal: list[str] = []
    for at, part in enumerate(content or ()):
        if isinstance(part, str):
            text.append(part)
        elif (kind := part.get("type")) in _THOUGHTS:
            thinking.append(_thought(part, f"{where}[{at}]"))
        elif kind == "refusal":
            refusal.append(part.get("refusal") or "")
        elif isinstance(part.get("text"), str):
            text.append(part.get("text") or "")
        elif kind not in _WORDLESS:
            raise BadAnswer(f"the backend's answer is not understood at {where}[{at}]: no text")
    return Said("".join(text), "".join(thinking), "".join(refusal))


def _thought(part: Part, where: str) -> str:
    inner = part.get("thinking")
    told = said(inner if inner is not None else part.get("text"), f"{where}.thinking")
    return told.text + told.thinking
