"""What the arguments of calls hold is bounded as a body is, though a body has each as one text.

Subjects: relay/admission/call_bounds.py, contract/json_texts/json_scan.py.
"""

from typing import Final

import pytest

from contract.chat import ChatRequest, CountRequest, Message, ToolCall
from contract.errors import PayloadTooLarge
from relay.admission.call_bounds import check_arguments

MANY: Final = '{"a":[' + "[]," * 100_000 + "[]]}"


def asked(*arguments: str) -> ChatRequest:
    calls = tuple(ToolCall(name="f", arguments=text) for text in arguments)
    return ChatRequest(model="m", messages=(Message(role="assistant", tool_calls=calls),))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([MANY], "objects and arrays"),
        (['{"a":[' + "[]," * 1000 + "[]]}"] * 100, "objects and arrays"),
        (['{"a":[' + "1," * 1_000_000 + "1]}"], "values"),
        (['{"a":[' + '"",' * 500_000 + '""]}'], "texts and names"),
        (['"', MANY], "objects and arrays"),
        (['{"a":"' + "[" * 100_000 + '"}', MANY], "objects and arrays"),
    ],
    ids=["arrays", "many calls", "numbers", "texts", "behind a text without end", "both"],
)
async def test_calls_hold_no_more_than_a_body(arguments: list[str], what: str) -> None:
    request = asked(*arguments)
    count = CountRequest(model="m", messages=request.messages)

    for each in (request, count):
        with pytest.raises(PayloadTooLarge, match=what):
            await check_arguments(each)


@pytest.mark.parametrize(
    "arguments",
    [
        ['{"code":"' + "[{,\\n" * 400_000 + '"}'],
        ['{"code":"' + "[{,😀" * 30_000 + '"}'] * 4,
        ['{"code":"' + '\\"' * 600_000 + '"}'],
        ['{"a":[' + "[]," * 1000 + "[]]}"] * 90,
        ["{}"] * 10_000,
    ],
    ids=["text", "texts", "quotes", "calls", "empty"],
)
async def test_what_is_only_text_does_not_count(arguments: list[str]) -> None:
    try:
        await check_arguments(asked(*arguments))
        refused = ""
    except PayloadTooLarge as error:
        refused = str(error)

    assert not refused
