"""Options that not every server has a word for: told in its word, or named as ignored."""

import pytest
from support.backends import asking

from contract.chat import ChatRequest, JsonFormat
from contract.wishes import wishes
from workers.backends.dialects import DIALECTS
from workers.backends.ollama_wire import to_chat as to_ollama
from workers.backends.ollama_wire import to_generate
from workers.backends.openai_wire import to_chat

WISHING = asking("m", repeat_penalty=1.2, context_length=4096)


@pytest.mark.parametrize(
    ("type", "field"),
    [
        ("llamacpp", "repeat_penalty"),
        ("lmstudio", "repeat_penalty"),
        ("vllm", "repetition_penalty"),
    ],
)
def test_a_penalty_for_repetition_has_the_servers_own_name(type: str, field: str) -> None:
    assert to_chat(WISHING, DIALECTS[type]).fields[field] == 1.2


@pytest.mark.parametrize("type", ["openai", "generic"])
def test_a_server_without_such_a_word_is_not_sent_one(type: str) -> None:
    dialect = DIALECTS[type]

    assert "repeat_penalty" not in to_chat(WISHING, dialect).fields
    assert set(wishes(WISHING)) - dialect.grants == {"repeat_penalty", "context_length"}


def test_ollama_is_told_both_among_its_options() -> None:
    options = to_ollama(WISHING)["options"]

    assert (options["repeat_penalty"], options["num_ctx"]) == (1.2, 4096)


def test_a_penalty_of_one_is_no_wish() -> None:
    assert wishes(asking("m", repeat_penalty=1)) == ()


def test_ollama_keeps_the_format_of_raw_text() -> None:
    body = to_generate(ChatRequest(model="m", prompt="a", response_format=JsonFormat()))

    assert (body["format"], body["raw"]) == ("json", True)
