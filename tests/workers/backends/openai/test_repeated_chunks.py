"""Chunks that are read by the bytes around their text are read as the parser reads them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.backends.http.decoders import MESSAGE
from workers.backends.http.json_text import StreamJson
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.chunks import plain_text
from workers.backends.openai.repeated_chunks import RepeatedChunks


def chunk(text: Any, *, ascii_only: bool = False, spaced: bool = False, **more: Any) -> bytes:
    value = {
        "id": "c1", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}], **more,
    }  # fmt: skip
    separators = None if spaced else (",", ":")
    return json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode(
        "utf-8", "surrogatepass"
    )


class Reader:
    """Reads a stream as the adapter does, and knows how many chunks it has parsed."""

    def __init__(self) -> None:
        self._adapter = OpenAI.__new__(OpenAI)
        self._texts = StreamJson()
        self._repeated = RepeatedChunks(plain_text)
        self.parsed = 0

    def read(self, data: bytes) -> str | None:
        (found,) = self._adapter._of_events(self._texts, [(MESSAGE, data)], self._repeated)
        self.parsed += not isinstance(found[-1], str)
        last = found[-1]
        return last if last is None or isinstance(last, str) else plain_text(last)


def test_only_the_first_chunk_is_parsed_while_nothing_else_changes() -> None:
    reader, words = Reader(), ["Hello", " world", "é", "\N{GRINNING FACE}", " end"]

    assert [reader.read(chunk(word)) for word in words] == words
    assert reader.parsed == 1


def test_another_time_of_creation_is_learned() -> None:
    reader = Reader()

    assert [reader.read(chunk(f"w{at}", created=at // 3)) for at in range(9)] == [
        f"w{at}" for at in range(9)
    ]
    assert reader.parsed == 3


@pytest.mark.parametrize(
    "data",
    [
        chunk('a "quote"'),
        chunk("a line\n"),
        chunk("back\\slash"),
        chunk("\N{GRINNING FACE}", ascii_only=True),
        chunk(None),
        chunk("x", usage={"prompt_tokens": 1}),
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    ],
)
def test_what_needs_the_parser_gets_it(data: bytes) -> None:
    reader = Reader()
    reader.read(chunk("first"))

    assert reader.read(data) == plain_text(json.loads(data))
    assert reader.parsed == 2


def test_an_empty_text_is_left_to_the_parser() -> None:
    repeated = RepeatedChunks(plain_text)
    repeated.learn(chunk("first"), json.loads(chunk("first")))

    assert repeated.text(chunk("second")) == "second"
    assert repeated.text(chunk("")) is None


def test_a_content_that_is_another_field_is_not_taken_for_the_text() -> None:
    def odd(other: str, text: str) -> bytes:
        return json.dumps(
            {"note": {"content": other}, "choices": [{"delta": {"content": text}}]},
            separators=(",", ":"),
        ).encode()

    reader = Reader()

    assert reader.read(odd("same", "same")) == "same"
    assert reader.read(odd("other", "same")) == "same"
    assert reader.parsed == 2


def test_bytes_that_are_no_text_are_an_error_as_ever() -> None:
    reader = Reader()
    reader.read(chunk("first"))

    with pytest.raises(Exception, match="JSON"):
        reader.read(chunk("first").replace(b"first", b"\xff\xfe"))


def test_halves_of_a_character_are_joined_across_chunks() -> None:
    reader = Reader()
    reader.read(chunk("first"))
    first = reader.read(chunk("A").replace(b'"A"', b'"A\\ud83d"'))
    second = reader.read(chunk("B").replace(b'"B"', b'"\\ude00B"'))

    assert (first or "") + (second or "") == "A\N{GRINNING FACE}B"


def test_a_server_that_counts_in_each_chunk_costs_few_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probes = 0

    def counted(parsed: Any) -> str | None:
        nonlocal probes
        probes += 1
        return plain_text(parsed)

    reader = Reader()
    reader._repeated = RepeatedChunks(counted)
    for at in range(100):
        assert reader.read(chunk("x", number=at)) == "x"

    assert probes <= 2 * 6


@given(st.lists(st.tuples(st.text(), st.booleans(), st.booleans(), st.integers(0, 1))))
def test_any_stream_is_read_as_the_parser_reads_it(
    chunks: list[tuple[str, bool, bool, int]],
) -> None:
    reader = Reader()
    for text, ascii_only, spaced, created in chunks:
        data = chunk(text, ascii_only=ascii_only, spaced=spaced, created=created)
        assert reader.read(data) == plain_text(json.loads(data))
