"""Whether Ollama leaves a trailing assistant message open, by what /api/show tells of the model.

A prompt is made in one of three ways (ollama/ollama v0.33 `server/routes.go`, chatModeForModel):
by a renderer of Ollama's own, some of which know a prefill; by a Go template, which closes the
message unless it asks for the last one (those that come with Ollama, `template/*.gotmpl`, all
close it); or by the llama-server underneath from the model's own template in Jinja, which then
repeats the beginning, because Ollama sends none of the flags that keep it from doing so. Pure.
"""

import re
from typing import Any, Final

_RENDERERS: Final = frozenset({
    "cohere", "lfm2", "lfm2-thinking", "olmo3", "olmo3.1", "qwen3-coder", "qwen3-vl-instruct",
    "qwen3-vl-thinking", "qwen3.5",
})  # fmt: skip
"""Those that leave it open (`model/renderers/*.go`); laguna does, too, and adds a line break."""
_ASKS_FOR_THE_LAST: Final = re.compile(
    r"if\s+not\s+(\$last\b|\(\s*eq\s+\(\s*len\s+\(\s*slice\s+\$\.Messages)"
)
"""As templates of Ollama's library have it before they close a message."""


def leaves_open(shown: dict[str, Any]) -> bool:
    """Whether an answer may be continued by sending its beginning back."""
    renderer, template = shown.get("renderer"), shown.get("template") or ""
    if shown.get("remote_host"):
        return False
    if renderer:
        return renderer in _RENDERERS
    if not template or "{%" in template:
        return False
    # Without .Messages a template is for one turn, and is cut where the answer stands in it.
    return ".Messages" not in template or bool(_ASKS_FOR_THE_LAST.search(template))
