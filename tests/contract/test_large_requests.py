"""A request in pieces is the JSON that the serializer alone would write.

Subjects: contract/wire.py, contract/rerank.py.
"""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from contract.chat import ChatRequest, Message, TextPart, Tool
from contract.embeddings import EmbedRequest
from contract.rerank import RerankRequest
from contract.wire import encode, encode_large, infinite_field, json_pieces

LARGE = 2**8


@pytest.fixture(scope="module", autouse=True)
def _small_slices() -> Iterator[None]:
    """As if little were large: the same cuts, with less to cut."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_LARGE_CHARS", "_SLICE_CHARS"):
            patch.setattr(f"contract.wire.{name}", LARGE)
        yield


@pytest.mark.parametrize("filling", ["x", "é", "中", "😀", "\n", "\\", '"', "\x00", "\x7f"])
@pytest.mark.parametrize("shift", [0, 1])
def test_pieces_are_the_whole(filling: str, shift: int) -> None:
    text = "中" * shift + filling * 2 * LARGE
    request = ChatRequest(
        model="m",
        messages=[
            Message(role="user", content=text),
            Message(role="user", content=(TextPart(text=text + "!"), TextPart(text="short"))),
        ],
        tools=[
            Tool(
                name="f",
                description=text,
                parameters={"a": [text, {text: None, text + "!": 1}], "b": 1.0},
            )
        ],
    )

    pieces = encode_large(request)

    assert b"".join(pieces) == encode(request)
    assert max(map(len, pieces)) <= 7 * LARGE


def test_no_text_is_kept_in_utf_8_as_well() -> None:
    text = "中" + "x" * 2 * LARGE
    size_bytes = sys.getsizeof(text)
    ranked = RerankRequest(model="m", documents=(text,), queries=(text,))

    encode_large(ranked)
    encode_large(EmbedRequest(model="m", input=(text, "short")))
    encode_large(ChatRequest(model="m", messages=(Message(role="user", content=text),)))

    assert sys.getsizeof(text) == size_bytes


def test_no_short_text_of_a_schema_is_either() -> None:
    text = "中 short"
    size_bytes = sys.getsizeof(text)
    tool = Tool(name="f", parameters={"a": [{"description": text}]})

    encode_large(ChatRequest(model="m", messages=(Message(role="user"),), tools=(tool,)))

    assert sys.getsizeof(text) == size_bytes


def test_a_text_is_as_bounded_as_a_field() -> None:
    schema = RerankRequest.model_json_schema()["properties"]

    assert schema["documents"]["items"] == {"maxLength": 262_144, "type": "string"}
    assert schema["queries"]["items"] == {"maxLength": 65_536, "minLength": 1, "type": "string"}
    for given, kind in (({"documents": ["x", "x" * 262_145]}, "long"), ({"query": ""}, "short")):
        fields: dict[str, Any] = {"model": "m", "documents": ["x"], "query": "x", **given}
        with pytest.raises(ValidationError) as caught:
            RerankRequest(**fields)
        assert [each["type"] for each in caught.value.errors()] == [f"string_too_{kind}"]


def test_a_value_without_large_texts_is_one_piece() -> None:
    value = {"a": [1, None, "text"], "b": {"c": True}}

    assert list(json_pieces(value)) == [to_json(value)]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("text", ["short", "x" * 2 * LARGE], ids=["short", "large"])
def test_a_number_that_json_has_no_word_for_is_null(number: float, text: str) -> None:
    value = {"a": number, "b": [1.5, number, {"c": number}], "d": text, "e": (number, 2)}
    whole = b"".join(json_pieces(value))

    assert from_json(whole, allow_inf_nan=False) == {
        "a": None, "b": [1.5, None, {"c": None}], "d": text, "e": [None, 2],
    }  # fmt: skip


def test_a_request_with_such_a_number_is_known_by_its_json() -> None:
    text = "x" * 2 * LARGE
    tool = Tool(name="f", description=text, parameters={"maximum": float("inf")})
    request = ChatRequest(model="m", messages=(Message(role="user", content=text),), tools=(tool,))

    assert b"".join(encode_large(request)) == encode(request)
    assert infinite_field(request, encode_large(request)) == "tools"
    words = Message(role="user", content="Infinity, NaN")
    request = ChatRequest(model="m", messages=(words,))
    assert infinite_field(request, [encode(request)]) is None
