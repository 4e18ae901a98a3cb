"""Opaque data of backends in the signatures of thinking blocks. Pure.

An Anthropic client returns every thinking block with its signature, and every `redacted_thinking`
block with its data, unchanged. So these carry what a backend needs back with a message or a call
(`provider_meta`), and a text of thinking that the client did not want to see. Signatures that were
made elsewhere are kept as OpenRouter's reasoning details, which Anthropic's models there accept.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import from_json

from contract.json_lines import json_line

_MARK: Final = "fleet."
"""Begins a signature of ours."""
_FORMAT: Final = "anthropic-claude-v1"
"""OpenRouter's name for the form of Anthropic's own signatures."""


def sign(facts: Mapping[str, Any]) -> str:
    """A signature that carries these facts; never empty, because clients treat that as missing.

    Known facts: `message` and `calls` (opaque data of the message, and of its calls by id),
    `thinking` (a text that was not sent).
    """
    return _MARK + base64.urlsafe_b64encode(json_line(facts)).decode()


def facts_in(signature: str) -> dict[str, Any] | None:
    """What `sign` has put in; None for a signature that was not made here."""
    if not signature.startswith(_MARK):
        return None
    try:
        facts = from_json(base64.urlsafe_b64decode(signature.removeprefix(_MARK)))
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def thinking_detail(text: str, signature: str, index: int) -> dict[str, Any]:
    """A signed thinking block of Anthropic's as a reasoning detail."""
    fields = {"type": "reasoning.text", "text": text, "signature": signature}
    return {**fields, "format": _FORMAT, "index": index}


def redacted_detail(data: str, index: int) -> dict[str, Any]:
    """A redacted block of Anthropic's as a reasoning detail."""
    return {"type": "reasoning.encrypted", "data": data, "format": _FORMAT, "index": index}
