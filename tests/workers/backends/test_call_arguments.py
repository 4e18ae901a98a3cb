"""Arguments that a backend takes as an object are what JSON can say; large ones delay nobody."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from contract.chat import ChatRequest, Message, ToolCall
from contract.errors import InvalidRequest
from workers.backends.call_arguments import translated
from workers.backends.google import requests as gemini
from workers.backends.in_process.chat_template import templated
from workers.backends.ollama import wire

USER = Message(role="user", content="hi")


def asked(*messages: Message) -> ChatRequest:
    return ChatRequest(model="gemini-2.5-pro", messages=(USER, *messages))


def calling(arguments: str) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id="c", name="f", arguments=arguments),))


@pytest.mark.parametrize("translate", [wire.to_chat, gemini.to_chat, templated])
@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1E+400", "9" * 310 + ".0"]
)
def test_numbers_that_json_cannot_say_are_refused(
    translate: Callable[[ChatRequest], Any], number: str
) -> None:
    for arguments in ('{"a":%s}', '{"b":[1,{"a":%s}]}'):
        with pytest.raises(InvalidRequest, match=r"messages\[1\].tool_calls.*arguments"):
            translate(asked(calling(arguments % number), USER))


@pytest.mark.parametrize("translate", [wire.to_chat, gemini.to_chat, templated])
def test_other_arguments_are_sent(translate: Callable[[ChatRequest], Any]) -> None:
    for arguments in ("", "{}", '{"a":1e300,"b":["1e999",null,-2.5]}'):
        assert translate(asked(calling(arguments), USER))


@pytest.mark.parametrize(("size", "is_elsewhere"), [(1000, False), (200_000, True)])
async def test_large_arguments_and_results_are_parsed_in_a_thread(
    size: int, *, is_elsewhere: bool
) -> None:
    here = threading.get_ident()
    for large in (calling('{"a":"' + "x" * size + '"}'), Message(role="tool", content="x" * size)):
        found = await translated(lambda _: threading.get_ident(), asked(large))

        assert is_elsewhere == (found != here)


@pytest.mark.parametrize("calls", [1, 100])
def test_results_that_hold_much_are_sent_to_gemini_as_text(calls: int) -> None:
    text = '{"a":[' + "[]," * (110_000 // calls) + "[]]}"
    results = [Message(role="tool", tool_name="f", content=text) for _ in range(calls)]
    few = Message(role="tool", tool_name="f", content='{"a":[[],[]]}')
    sent = gemini.contents(asked(calling("{}"), *results))[-1]["parts"]
    alone = gemini.contents(asked(calling("{}"), few))[-1]["parts"]

    assert [part["functionResponse"]["response"] for part in sent] == [{"result": text}] * calls
    assert alone[0]["functionResponse"]["response"] == {"a": [[], []]}
