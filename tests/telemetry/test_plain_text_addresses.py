"""What tenants read of an error: what went wrong at which backend, and not where that is."""

import pytest

from telemetry.plain_text import without_addresses

BOX = ("http://10.0.0.5:11434/v1", "http://gpu-1.internal:8000", "/srv/models/qwen.gguf")
SAID = {
    "http://10.0.0.5:11434/v1 cannot be reached: refused": "box cannot be reached: refused",
    "http://10.0.0.5:11434/v1/models did not answer": "box/models did not answer",
    "Cannot connect to host gpu-1.internal:8000 ssl:default [no route]": (
        "Cannot connect to host box ssl:default [no route]"
    ),
    "HTTP://GPU-1.Internal:8000 is gone.": "box is gone.",
    "Connect call failed ('10.0.0.7', 11434)": "Connect call failed",
    "Connect call failed ('fe80::1', 1, 0, 2), and more": "Connect call failed, and more",
    "/srv/models/qwen.gguf is no model": "box is no model",
    "no certificate for 'gpu-1.internal'": "no certificate for 'box'",
}
KEPT = (
    "110.0.0.5 and 10.0.0.50 are others",
    "my-gpu-1.internal and gpu-1.internal.example are others",
    "at 8000 tokens (of 11434) it ended",
    "",
)


@pytest.mark.parametrize(("text", "public"), SAID.items())
def test_a_backend_has_its_name_where_its_address_was(text: str, public: str) -> None:
    assert without_addresses(text, BOX, "box") == public


@pytest.mark.parametrize("text", KEPT)
def test_other_text_stays(text: str) -> None:
    assert without_addresses(text, BOX, "box") == text


@pytest.mark.parametrize("addresses", [(), ("",), ("ollama",), ("http://",)])
def test_a_backend_without_an_address_hides_nothing(addresses: tuple[str, ...]) -> None:
    assert without_addresses("ollama is out of memory", addresses, "box") == (
        "ollama is out of memory"
    )
