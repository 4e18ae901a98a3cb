"""An assistant's turn as Gemini's parts, so that each signature goes back on the part it came on.

Gemini signs parts with `thoughtSignature` and wants them back where they were: on the same part,
in the same order, a signed part never merged with another (ai.google.dev, thought signatures;
Gemini 3 answers 400 otherwise). A call carries its signature and id in `ToolCall.provider_meta`.
Where that does not tell all (a signed text, or text behind a call), `Message.provider_meta` holds
the order:

    {"google": {"parts": [{"text": 12}, {"call": 0}, {"text": 0, "thoughtSignature": "..."}]}}

`text` counts the characters of the message's text that stand in that part.
"""

from typing import Any, Final

from pydantic_core import from_json

from contract.chat import Message, ToolCall
from contract.errors import InvalidRequest

META: Final = "google"
SIGNATURE: Final = "thoughtSignature"
NOT_OURS: Final = "skip_thought_signature_validator"
"""What Google's page on thought signatures says to write on calls that another model made."""


class Layout:
    """The order of an answer's parts, as it grows."""

    def __init__(self) -> None:
        """No part yet."""
        self._parts: list[dict[str, Any]] = []

    def add_text(self, text: str, signature: str | None) -> None:
        """Words; those without a signature join the ones before them."""
        last = self._parts[-1] if self._parts else {}
        if signature is not None:
            self._parts.append({"text": len(text), SIGNATURE: signature})
        elif "text" in last and SIGNATURE not in last:
            last["text"] += len(text)
        elif text:
            self._parts.append({"text": len(text)})

    def add_thought(self, text: str, signature: str) -> None:
        """A thought that was signed; the others are never sent back."""
        self._parts.append({"thought": text, SIGNATURE: signature})

    def add_call(self, index: int) -> None:
        """A call; its signature is its own."""
        self._parts.append({"call": index})

    @property
    def meta(self) -> dict[str, Any] | None:
        """What the message must carry; None if text before calls says it all."""
        is_signed = any(SIGNATURE in part for part in self._parts)
        kinds = ["call" in part for part in self._parts]
        return {META: {"parts": self._parts}} if is_signed or kinds != sorted(kinds) else None


def call_meta(id: str | None, signature: str | None) -> dict[str, Any] | None:
    """What a call must carry: the id that Gemini gave it (not one of ours), and its signature."""
    given = {"id": id, SIGNATURE: signature}
    meta = {name: value for name, value in given.items() if value is not None}
    return {META: meta} if meta else None


def parts_of(at: int, message: Message, *, signs: bool) -> list[dict[str, Any]]:
    """The parts of the assistant's turn `messages[at]`; `signs` asks for a signature on calls."""
    calls = [call_part(at, call) for call in message.tool_calls]
    if signs and calls and SIGNATURE not in calls[0]:
        calls[0][SIGNATURE] = NOT_OURS
    text = message.text
    thought = [{"text": message.thinking, "thought": True}] if message.thinking else []
    layout = _layout(message)
    if layout is None or not _fits(layout, len(text), len(calls)):
        return thought + ([{"text": text}] if text else []) + calls
    # Thoughts that were signed stand in the order, and hold all that there was of them.
    parts, start = [] if any("thought" in item for item in layout) else thought, 0
    for item in layout:
        if "call" in item:
            parts.append(calls[item["call"]])
            continue
        if "thought" in item:
            part = {"text": item["thought"], "thought": True}
        else:
            part = {"text": text[start : start + item["text"]]}
            start += item["text"]
        parts.append(part | ({SIGNATURE: item[SIGNATURE]} if SIGNATURE in item else {}))
    return parts


def call_part(at: int, call: ToolCall) -> dict[str, Any]:
    """A call as a part; raises InvalidRequest for arguments that are no object."""
    try:
        arguments = from_json(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"messages[{at}].tool_calls: arguments must be a JSON object")
    meta = google_meta(call.provider_meta)
    id = {"id": meta["id"]} if "id" in meta else {}
    part: dict[str, Any] = {"functionCall": {**id, "name": call.name, "args": arguments}}
    return part | ({SIGNATURE: meta[SIGNATURE]} if SIGNATURE in meta else {})


def google_meta(meta: dict[str, Any] | None) -> dict[str, Any]:
    """Our share of what a message or a call carries."""
    found = (meta or {}).get(META)
    return found if isinstance(found, dict) else {}


def _layout(message: Message) -> list[dict[str, Any]] | None:
    parts = google_meta(message.provider_meta).get("parts")
    return parts if isinstance(parts, list) else None


def _fits(layout: list[Any], characters: int, calls: int) -> bool:
    """Whether nobody has changed the message since; an edited one goes without its order."""
    if not all(isinstance(item, dict) for item in layout):
        return False
    indexes = [item["call"] for item in layout if "call" in item]
    sizes = [item["text"] for item in layout if "text" in item]
    if not all(isinstance(number, int) for number in (*indexes, *sizes)):
        return False
    return sorted(indexes) == list(range(calls)) and sum(sizes) == characters
