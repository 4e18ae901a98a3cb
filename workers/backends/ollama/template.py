"""Whether Ollama continues a trailing assistant message, from the response of /api/show.

A prompt is rendered in one of three ways (ollama/ollama v0.33 `server/routes.go`,
chatModeForModel): by a renderer of Ollama, some of which support prefill; by a Go template, which
closes the message unless it tests for the last one (those of Ollama, `template/*.gotmpl`, all
close it); or by llama-server from the model's Jinja template, which then repeats the prefill,
because Ollama sends none of the flags that prevent it. Does no I/O.
"""

import re
from typing import Any, Final

_RENDERERS: Final = frozenset({
    "cohere", "lfm2", "lfm2-thinking", "olmo3", "olmo3.1", "qwen3-coder", "qwen3-vl-instruct",
    "qwen3-vl-thinking", "qwen3.5",
})  # fmt: skip
"""Renderers that leave it open (`model/renderers/*.go`); laguna also adds a line break."""
_TESTS_FOR_LAST: Final = re.compile(
    r"if\s+not\s+(\$last\b|\(\s*eq\s+\(\s*len\s+\(\s*slice\s+\$\.Messages)"
)
"""The test before closing a message, as in templates of Ollama's library."""


def leaves_open(shown: dict[str, Any]) -> bool:
    """Whether a response can be continued by sending its beginning back."""
    renderer, template = shown.get("renderer"), shown.get("template") or ""
    if shown.get("remote_host"):
        return False
    if renderer:
        return renderer in _RENDERERS
    if not template or "{%" in template:
        return False
    # Without .Messages a template is for one turn, and ends where the response begins.
    return ".Messages" not in template or bool(_TESTS_FOR_LAST.search(template))
