"""Which names mean the same model."""

import time
from pathlib import Path

import pytest

from contract.model_names import close, find, is_path, is_same, spellings, untagged

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("qwen3", "qwen3:latest", True),
        ("qwen3:latest", "qwen3", True),
        ("qwen3", "qwen3", True),
        ("qwen3", "qwen3:8b", False),
        ("qwen3:8b", "qwen3:latest", False),
        ("hf.co/a/b", "hf.co/a/b:latest", True),
        ("/home/me/models/qwen.gguf", "qwen.gguf", True),
        ("C:\\models\\qwen.gguf", "qwen.gguf", True),
        ("./models/qwen.gguf", "/elsewhere/qwen.gguf", True),
        ("models/qwen.gguf", "qwen.gguf", True),
        ("/models/llama-8b/", "llama-8b", True),
        ("meta-llama/Llama-3", "Llama-3", False),
        ("user/repo:Q4_K_M", "repo:Q4_K_M", False),
    ],
)
def test_a_name_without_a_tag_is_the_latest(one: str, other: str, *, same: bool) -> None:
    assert is_same(one, other) is same
    assert (untagged(one) == untagged(other)) is same


def test_every_spelling_of_a_model_is_known_and_a_tag_is_kept() -> None:
    assert spellings(["a", "b:latest", "c:8b"]) == {"a", "a:latest", "b", "b:latest", "c:8b"}


def test_the_exact_name_is_found_before_another_spelling_of_it() -> None:
    models = {"m:latest": 1, "m": 2, "n:latest": 3}

    assert find(models, "m") == ("m", 2)
    assert find(models, "n") == ("n:latest", 3)
    assert find(models, "o") is None


def test_close_names_are_hardly_less_similar_than_the_closest() -> None:
    names = ["scripted-echo", "scripted-tools", "scripted-story"]

    assert close("scripted-echoo", names) == ["scripted-echo"]
    assert close("phi3", ["phi4", "gemma"]) == ["phi4"]
    assert close("llama", ["llama3.2:3b", "llama3.1:8b"]) == ["llama3.1:8b", "llama3.2:3b"]


def test_the_latest_rule_is_in_one_file() -> None:
    holders = [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if '":latest"' in path.read_text(encoding="utf-8")
    ]

    assert holders == ["contract/model_names.py"]


def test_many_slashes_take_no_time() -> None:
    began_at = time.perf_counter()

    assert not is_path("a" + "/" * 200_000)
    assert is_path("a" + "/" * 200_000 + "b.GGUF")
    assert time.perf_counter() - began_at < 1  # the square of the slashes took ten seconds
