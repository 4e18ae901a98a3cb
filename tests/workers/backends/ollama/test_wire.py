"""Which models of Ollama go on with an answer that is sent back to them."""

from typing import Any

import pytest

from workers.backends.ollama.wire import leaves_open

LIBRARY = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}<|im_start|>{{ .Role }}
{{ .Content }}{{ if not $last }}<|im_end|>
{{ end }}{{ end }}"""
SHIPPED = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
SLICED = (
    "{{ range $index, $_ := .Messages }}{{ .Content }}"
    "{{ if not (eq (len (slice $.Messages $index)) 1) }}</s>{{ end }}{{ end }}"
)
JINJA = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.mark.parametrize(
    "shown",
    [
        {"template": LIBRARY},
        {"template": SLICED},
        {"template": "{{ .System }} {{ .Prompt }} {{ .Response }}"},
        {"template": LIBRARY, "renderer": "qwen3-coder"},
    ],
)
def test_a_template_that_tests_for_the_last_message_continues_it(shown: dict[str, Any]) -> None:
    assert leaves_open(shown)


@pytest.mark.parametrize(
    "shown",
    [
        {"template": SHIPPED},
        {"template": JINJA},
        {},
        {"template": LIBRARY, "renderer": "gemma4"},
        {"template": LIBRARY, "remote_host": "https://ollama.com"},
    ],
)
def test_one_that_closes_every_message_cannot(shown: dict[str, Any]) -> None:
    assert not leaves_open(shown)
