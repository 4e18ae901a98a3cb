"""Streams are decoded the same wherever their packets were cut."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BadEndpoint
from workers.backends.http import decoders
from workers.backends.http.decoders import BARE, ERROR, MESSAGE, Ndjson, Sse

PIECES = [b"data: \xc3\xa9", b"\r", b"\n", b":", b"{", b"event: error", b"\xef\xbb\xbf"]


def sse(*packets: bytes) -> list[tuple[str, bytes]]:
    decoder = Sse()
    events = [event for packet in packets for event in decoder.feed(packet)]
    return events + decoder.flush()


def ndjson(*packets: bytes) -> list[bytes]:
    decoder = Ndjson()
    lines = [line for packet in packets for line in decoder.feed(packet)]
    return lines + decoder.flush()


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"data: a\n\n", [(MESSAGE, b"a")]),
        (b"data:a\n\n", [(MESSAGE, b"a")]),
        (b"data:  a\n\n", [(MESSAGE, b" a")]),
        (b"data\n\n", [(MESSAGE, b"")]),
        (b": ping\n\ndata: a\n\n", [(MESSAGE, b"a")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
        (b"data: a\r\rdata: b\r\r", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
        (b"data: a\ndata: b\n\n", [(MESSAGE, b"a\nb")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [(ERROR, b"a"), (MESSAGE, b"b")]),
        (b"event: named\n\ndata: b\n\n", [(MESSAGE, b"b")]),
        (b'error: {"code":500}\n\n', [(ERROR, b'{"code":500}')]),
        (b'data: a\n\n{"error":"x"}', [(MESSAGE, b"a"), (BARE, b'{"error":"x"}')]),
        (b"proxy error: refused", [(BARE, b"proxy error: refused")]),
        (b"id: 1\nretry: 5\ndata: a\n\n", [(MESSAGE, b"a")]),
        (b"data: a", [(MESSAGE, b"a")]),
        (b"data: a\r\n", [(MESSAGE, b"a")]),
        (b"\n\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
        (b"\xef\xbb\xbf: ping\n\ndata: a\n\n", [(MESSAGE, b"a")]),
        (b"\xef\xbb", [(BARE, b"\xef\xbb")]),
    ],
)
def test_sse_is_read_in_every_form_that_servers_write_it(
    raw: bytes, events: list[tuple[str, bytes]]
) -> None:
    assert events == sse(raw)


@given(
    st.lists(
        st.sampled_from(
            [b"data: \xc3\xa9", b"\r", b"\n", b":", b"{", b"event: error", b"\xef\xbb\xbf"]
        )
    )
)
def test_sse_events_do_not_depend_on_the_packets(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    whole = sse(raw)

    assert whole == sse(*(raw[at : at + 1] for at in range(len(raw))))
    assert whole == sse(*pieces)


@given(st.binary(), st.lists(st.integers(0, 40), max_size=8))
def test_no_bytes_break_a_decoder_however_they_are_cut(raw: bytes, cuts: list[int]) -> None:
    marks = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    packets = [raw[start:end] for start, end in pairwise(marks)]

    assert sse(raw) == sse(*packets)
    assert ndjson(raw) == ndjson(*packets)


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)))
def test_ndjson_lines_arrive_as_they_were_written(texts: list[str]) -> None:
    lines = [f'"{text}"'.encode() for text in texts]
    raw = b"".join(line + b"\n" for line in lines)

    assert lines == ndjson(*(raw[at : at + 3] for at in range(0, len(raw), 3)))


def test_blank_lines_of_ndjson_are_skipped_and_the_last_needs_no_end() -> None:
    assert ndjson(b"\n1\n \n2\r\n3") == [b"1", b"2\r", b"3"]


def test_a_byte_order_mark_is_not_part_of_the_first_line() -> None:
    assert ndjson(b"\xef", b"\xbb\xbf{}\n{}") == [b"{}", b"{}"]
    assert ndjson(b"\xef\xbb\xbf") == []


def test_a_line_of_ten_megabytes_costs_what_it_weighs() -> None:
    packet = b"x" * 16_384
    decoder = Sse()
    began = time.process_time()
    decoder.feed(b"data: ")
    for _ in range(640):
        decoder.feed(packet)
    events = decoder.feed(b"\n\n")

    assert len(events[0][1]) == 640 * 16_384
    assert time.process_time() - began < 0.5  # copying it at every packet would take 3 s


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sse, "limit_bytes", 200)
    monkeypatch.setattr(decoders, "MOST_TEXT_BYTES", 200)

    for packets in ([b"x" * 60] * 4, [b"data: %s\n" % (b"x" * 60)] * 2, [b"data:\n"] * 4):
        with pytest.raises(BadEndpoint, match="more than 200 bytes"):
            sse(*packets)
    with pytest.raises(BadEndpoint):
        ndjson(*[b"x" * 60] * 4)
