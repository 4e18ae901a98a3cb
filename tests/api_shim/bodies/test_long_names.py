"""A name of a field that no error could repeat is refused in bodies of every size and surface.

Subjects: api_shim/bodies/large_json.py, api_shim/batch/lines.py.
"""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_shim.batch.lines import InputLine, parse_row
from api_shim.bodies.large_json import parse_large
from contract.batches import LineError
from contract.json_texts.json_scan import NameTooLong

MOST = 2**18
LONG = "n" * MOST
"""With its quotes it is two bytes longer than a name may be."""
NOISE = ['"', "\\", '\\"', ":", '":', ',"', " ", "é", "{"]


@pytest.mark.parametrize("mebibytes", [0, 1, 3, 5])
@pytest.mark.parametrize("name", [LONG, '\\"' + LONG, LONG + "\\", ":" + LONG, LONG + '":'])
@pytest.mark.parametrize("between", [":", " \n:"])
def test_a_long_name_is_refused_however_large_its_body_is(
    name: str, between: str, mebibytes: int
) -> None:
    pad = json.dumps(["x" * 2**20] * mebibytes)
    data = f'{{"a":{pad},"b":[{{{json.dumps(name)}{between}1}}]}}'.encode()

    with pytest.raises(NameTooLong, match=f"name of the field '.{{40,50}}'... has .* {MOST} bytes"):
        parse_large([data])


@given(before=st.lists(st.sampled_from(NOISE), max_size=6), after=st.lists(st.sampled_from(NOISE)))
def test_what_is_no_name_may_be_long(before: list[str], after: list[str]) -> None:
    text = "".join(before) + LONG + "".join(after)
    value = {
        "a": [text, *before, [1] * (MOST // 2), *after, ":x", text],
        "b" * (MOST - 2): "".join(after),
    }
    data = json.dumps(value, separators=(",", ":")).encode()

    assert parse_large([data]) == value


def test_a_row_of_a_batch_with_a_long_name_is_refused() -> None:
    row = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {LONG: 1}}
    found = parse_row(InputLine(1, 0, json.dumps(row).encode()), 2**22)

    assert isinstance(found, LineError)
    assert found.message.endswith(f"has more than {MOST} bytes: shorten the name.")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/jobs/chat", {"messages": [{"role": "user", "content": "a", LONG: 1}]}),
        ("/v1/chat/completions", {LONG: 1}),
        ("/v1/responses", {"input": "a", "metadata": {LONG: "a"}}),
        ("/v1/messages", {"tools": [{"name": "a", "input_schema": {LONG: {}}}]}),
        ("/v1/messages/batches", {"requests": [{"custom_id": "1", "params": {LONG: 1}}]}),
        ("/api/chat", {"options": {LONG: 1}}),
        ("/v2/rerank", {"query": "a", "documents": [{LONG: "a"}]}),
    ],
)
def test_every_surface_says_what_is_too_long_and_what_to_do(
    session_shim: str, path: str, body: dict[str, Any]
) -> None:
    answer = httpx.post(f"{session_shim}{path}", json={"model": "m", **body})

    assert answer.status_code == 413
    assert f"{MOST} bytes: shorten the name." in answer.text
    assert len(answer.text) < 1000
