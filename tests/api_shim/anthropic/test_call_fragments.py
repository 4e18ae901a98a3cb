"""Arguments of a call that come in fragments are whole when they are a JSON object.

Subjects: api_shim/anthropic/block_kinds.py, workers/backends/openai/chunks.py.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from api_shim.anthropic import block_kinds
from api_shim.anthropic.answer_blocks import AnswerBlocks
from contract.json_texts.arguments import ScanRoom
from workers.backends.openai import chunks

QUICK_S: Final = 10.0
"""Many times what it takes; where each fragment has all before it looked at, it took minutes."""
CALLS: Final = 20_000

WHOLE = (['{"a":', "1}"], ['{"a":1}', "\n", " "])
UNFINISHED = (['{"a":{"b":1}'], ['{"a":1', "}x"], ["[1]"], ['"}"'], [" "], [])


def of_shim(fragments: list[str]) -> block_kinds.CallAnswer:
    call = block_kinds.CallAnswer("c", "f", ScanRoom())
    for fragment in fragments:
        list(call.append(0, fragment))
    return call


def of_worker(fragments: list[str]) -> Any:
    call = chunks._OpenCall(0, ScanRoom())
    for fragment in fragments:
        call.append(fragment)
    return call


@pytest.mark.parametrize("of", [of_shim, of_worker])
def test_a_whole_object_is_whole(of: Callable[[list[str]], Any]) -> None:
    assert [of(each).is_whole for each in WHOLE] == [True, True]
    assert not any(of(each).is_whole for each in UNFINISHED)


@pytest.mark.parametrize(
    ("of", "module", "name"),
    [(of_shim, block_kinds, "from_json"), (of_worker, chunks, "parse_json")],
)
@pytest.mark.parametrize("fragment", ["}", "{}", ' "}"', "{", "]"])
def test_arguments_are_parsed_once(
    of: Callable[[list[str]], Any],
    module: Any,
    name: str,
    fragment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[object] = []
    monkeypatch.setattr(module, name, parsed.append)
    call = of(['{"text":1}'])
    asked = [call.is_whole for _ in range(3)]
    add = call.append if of is of_worker else lambda text: list(call.append(0, text))
    for _ in range(100):
        add(fragment)
        asked.append(call.is_whole)

    assert len(parsed) == 1
    assert not any(asked)


@pytest.mark.parametrize("of", [of_shim, of_worker])
def test_fragments_that_end_nothing_are_not_parsed(of: Callable[[list[str]], Any]) -> None:
    started = time.perf_counter()
    call = of(['{"a":"'])
    add = call.append if of is of_worker else lambda text: list(call.append(0, text))
    for _ in range(100_000):
        add("} ")
        assert not call.is_whole

    assert time.perf_counter() - started < QUICK_S


def test_what_waits_for_unfinished_calls_is_looked_at_once() -> None:
    blocks = AnswerBlocks("a" * 32)
    started = time.perf_counter()
    for at in range(CALLS):
        fragment = {"index": at, "id": f"c{at}", "name": "f", "arguments": "{"}
        blocks.add({"content": f"text {at}", "tool_calls": [fragment]})
    events = blocks.close()

    assert len(blocks.values) == 2 * CALLS
    assert events[-1]["type"] == "content_block_stop"
    assert time.perf_counter() - started < QUICK_S


def test_fragments_that_wait_are_in_their_blocks() -> None:
    blocks = AnswerBlocks("a" * 32)
    for index, text in ((0, '{"a":'), (1, '{"b":'), (0, '"}"'), (2, "{}"), (1, "1}"), (0, "}")):
        fragment = {"index": index, "id": f"call-{index}", "name": "f", "arguments": text}
        blocks.add({"tool_calls": [fragment], "content": "x" if index == 1 else None})
    blocks.close()

    assert [block.get("input", block.get("text")) for block in blocks.values] == [
        {"a": "}"}, "x", {"b": 1}, {}, "x",
    ]  # fmt: skip


def test_arguments_that_hold_much_are_given_as_text() -> None:
    much = '{"a":[' + "[]," * 60_000 + "[]]}"
    for texts in ([much], ["{}", *['{"a":[' + "[]," * 2000 + "[]]}"] * 30]):
        blocks = AnswerBlocks("a" * 32)
        for at, text in enumerate(texts):
            blocks.add({"tool_calls": [{"index": at, "name": "f", "arguments": text}]})
        blocks.close()

        assert [each["input"] for each in blocks.values] == [{"INVALID_JSON": it} for it in texts]


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_cannot_say_are_given_as_text(number: str) -> None:
    call = of_shim(['{"a":', number, "}"])

    assert call.value["input"] == {"INVALID_JSON": f'{{"a":{number}}}'}
