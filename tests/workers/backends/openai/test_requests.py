"""The reasoning effort for each generation of OpenAI's models."""

import pytest

from contract.chat import ChatRequest, Message, Think
from workers.backends.openai.dialects import DIALECTS
from workers.backends.openai.requests import to_chat


@pytest.mark.parametrize(
    ("model", "think", "word", "ignored"),
    [
        ("gpt-5.1", "off", "none", ()),
        ("gpt-5.2-pro", "xhigh", "xhigh", ()),
        ("gpt-5", "off", "minimal", ("think",)),
        ("gpt-5-mini-2025-08-07", "minimal", "minimal", ()),
        ("gpt-5-nano", "xhigh", "high", ("think",)),
        ("o3-mini", "minimal", "low", ("think",)),
        ("o4-mini", "high", "high", ()),
        ("gpt-4o", "off", None, ()),
        ("gpt-4.1-mini", "high", None, ("think",)),
        ("gpt-4o", "auto", None, ()),
    ],
)
def test_a_wish_becomes_the_nearest_word_that_the_model_knows(
    model: str, think: Think, word: str | None, ignored: tuple[str, ...]
) -> None:
    request = ChatRequest(model=model, messages=(Message(role="user", content="hi"),), think=think)
    body = to_chat(request, DIALECTS["openai"])

    assert body.fields.get("reasoning_effort") == word
    assert body.ignored == ignored
