"""Which models of Ollama go on with an answer that is sent back to them."""

from typing import Any

import pytest

from workers.backends.ollama_template import leaves_open

LIBRARY = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}<|im_start|>{{ .Role }}
{{ .Content }}{{ if not $last }}<|im_end|>
{{ end }}{{ end }}"""
SHIPPED = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
SLICED = "{{ range $index, $_ := .Messages }}{{ .Content }}" + (
    "{{ if not (eq (len (slice $.Messages $index)) 1) }}</s>{{ end }}{{ end }}"
)
JINJA = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({"template": LIBRARY}, True),
        ({"template": SLICED}, True),
        ({"template": "{{ .System }} {{ .Prompt }} {{ .Response }}"}, True),
        ({"template": SHIPPED}, False),
        ({"template": JINJA}, False),
        ({}, False),
        ({"template": LIBRARY, "renderer": "qwen3-coder"}, True),
        ({"template": LIBRARY, "renderer": "gemma4"}, False),
        ({"template": LIBRARY, "remote_host": "https://ollama.com"}, False),
    ],
)
def test_a_template_that_closes_every_message_cannot_go_on(
    shown: dict[str, Any], expected: bool
) -> None:
    assert leaves_open(shown) is expected
