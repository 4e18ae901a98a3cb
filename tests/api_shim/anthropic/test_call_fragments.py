"""Arguments of a call that come in fragments are whole when they are a JSON object.

Subjects: api_shim/anthropic/block_kinds.py, workers/backends/openai/chunks.py.
"""

from collections.abc import Callable
from typing import Any

import pytest

from api_shim.anthropic import block_kinds
from workers.backends.openai import chunks

WHOLE = (['{"a":', "1}"], ['{"a":1}', "\n", " "])
UNFINISHED = (['{"a":{"b":1}'], ['{"a":1', "}x"], ["[1]"], ['"}"'], [" "], [])


def of_shim(fragments: list[str]) -> block_kinds.CallAnswer:
    call = block_kinds.CallAnswer("c", "f")
    for fragment in fragments:
        list(call.append(0, fragment))
    return call


def of_worker(fragments: list[str]) -> Any:
    call = chunks._OpenCall(0)
    call.arguments += fragments
    return call


@pytest.mark.parametrize("of", [of_shim, of_worker])
def test_a_whole_object_is_whole(of: Callable[[list[str]], Any]) -> None:
    assert [of(each).is_whole for each in WHOLE] == [True, True]
    assert not any(of(each).is_whole for each in UNFINISHED)


@pytest.mark.parametrize(
    ("of", "module", "name"),
    [(of_shim, block_kinds, "from_json"), (of_worker, chunks, "parse_json")],
)
def test_fragments_that_cannot_end_it_are_not_parsed(
    of: Callable[[list[str]], Any], module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(_: object) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(module, name, parse)

    assert not of(['{"text":"', "word ", "} word"]).is_whole
