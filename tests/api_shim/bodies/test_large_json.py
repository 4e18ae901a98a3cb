"""A large text is the value that the parser alone makes of it, wherever it is cut."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from api_shim.bodies.large_json import parse_large
from contract.json_texts.json_scan import TooMuch

CUT = 2**8
FILLINGS = ["x", "é", "中", "😀", "\n", "\\", '"', "\\ud83d", "\x00", "\\\n"]
TAILS = st.lists(st.sampled_from([*FILLINGS, "u12", "d83d"]), max_size=12).map("".join)


@pytest.fixture(scope="module", autouse=True)
def _small_slices() -> Iterator[None]:
    """As if little were large: the same cuts, with less to cut."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_LARGE_BYTES", "_SLICE_BYTES", "_LARGE_ASCII_BYTES"):
            patch.setattr(f"api_shim.bodies.large_json.{name}", CUT)
        yield


def parsed(data: bytes) -> Any:
    held = [data]
    value = parse_large(held)
    assert held == []
    return value


@pytest.mark.parametrize("escaped", [False, True], ids=["utf-8", "escapes"])
@pytest.mark.parametrize("filling", FILLINGS, ids=ascii)
@pytest.mark.parametrize("shift", range(7))
def test_a_large_text_is_put_together_again(filling: str, shift: int, *, escaped: bool) -> None:
    text = "y" * shift + filling * (2 * CUT // len(filling)) + "中"
    value = {"a": [text, 1, {"b": text + "!", text: None}], "c": "short中", "d": text}

    assert parsed(json.dumps(value, ensure_ascii=escaped).encode()) == value


@given(before=TAILS, after=TAILS, escaped=st.booleans(), shift=st.integers(0, 12))
def test_a_cut_is_between_two_characters(
    *, before: str, after: str, escaped: bool, shift: int
) -> None:
    text = "é" + "x" * (CUT - 8 - shift) + before + after + "x" * CUT
    data = json.dumps({"a": text}, ensure_ascii=escaped).encode()

    assert parsed(data) == {"a": text}


@pytest.mark.parametrize(
    "data",
    [
        b'"' + "é".encode() * CUT + b"\xff" * CUT + b'"]',
        b'"' + "é".encode() * CUT + b"\x80" * 2 * CUT + b'"]',
        b'"' + "é".encode() * CUT + b'\\ud83d"]',
        b'"' + "é".encode() * CUT + b'\\x"]',
        b'"' + "é".encode() * CUT + b'\n"]',
        b'"' + "é".encode() * CUT + b'" "a"]',
        b'"' + "é".encode() * CUT + b'",]',
        b'"' + "é".encode() * CUT + b'"',
        b'"' + "é".encode() * CUT,
        b'"' + "é".encode() * CUT + b"\\",
        b'"' + "é".encode() * CUT + b'":1]',
        b'{"' + "é".encode() * CUT + b'"}]',
        b'NaN,"' + "é".encode() * CUT + b'"]',
    ],
    ids=range(13),
)
def test_what_is_no_json_is_none(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(b"[" + data, allow_inf_nan=False)
    with pytest.raises(ValueError, match=r".") as told:
        parsed(b"[" + data)
    assert len(str(told.value)) < 200


@given(
    st.recursive(
        st.sampled_from(["中" * CUT, "x" * CUT, "é", 1, None]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "b", "中" * CUT]), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
def test_any_tree_is_itself(tree: Any) -> None:
    data = json.dumps(["中" * CUT, tree], ensure_ascii=False).encode()

    assert parsed(data) == ["中" * CUT, tree]


@pytest.mark.parametrize("text", ["中" + "x" * 2**18, "x" * 2**18])
def test_a_name_of_megabytes_is_refused_before_it_is_parsed(text: str) -> None:
    with pytest.raises(TooMuch, match="name of the field"):
        parsed(json.dumps({"a": {text: 1}}).encode())

    assert parsed(json.dumps({"a": text}).encode()) == {"a": text}
