"""Bytes cut anywhere become the same frames."""

import time

import pytest

from contract.events import EventId
from fleet.client.job import FrameDecoder

STREAM = (
    ": hello\n\n"
    'id: 1-1\nevent: started\ndata: {"id":"1-1","type":"started"}\n\n'
    'event: queued\ndata: {"type":"queued"}\n\n'
    'id: 1-2\r\nevent: delta\r\ndata: {"content":"a\u2028b 🚀"}\r\n\r\n'
).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    decoder = FrameDecoder()
    pieces = (STREAM[at : at + size] for at in range(0, len(STREAM), size))

    frames = [frame for piece in pieces for frame in decoder.feed(piece)]

    assert [(frame.id, frame.type) for frame in frames] == [
        (EventId(1, 1), "started"),
        (None, "queued"),
        (EventId(1, 2), "delta"),
    ]
    assert frames[2].body == '{"content":"a\u2028b 🚀"}'.encode()


def test_a_keep_alive_is_no_event() -> None:
    assert FrameDecoder().feed(b": still here\n\n") == []


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_end_of_a_line_ends_it_and_a_mark_at_the_start_is_none_of_it(end: bytes) -> None:
    stream = b"\xef\xbb\xbf" + b"id: 1-1\nevent: delta\ndata: {}\n\n".replace(b"\n", end)
    decoder = FrameDecoder()
    frames = [frame for at in range(len(stream)) for frame in decoder.feed(stream[at : at + 1])]

    assert [(f.id, f.type, f.body) for f in frames + decoder.feed(b"")] == [
        (EventId(1, 1), "delta", b"{}")
    ]


def test_an_event_of_ten_megabytes_costs_what_it_weighs() -> None:
    decoder, piece = FrameDecoder(), b"x" * 4096
    began = time.process_time()
    decoder.feed(b"event: image\ndata: ")
    for _ in range(2560):
        decoder.feed(piece)
    (frame,) = decoder.feed(b"\n\n")

    assert len(frame.body) == 2560 * 4096
    assert time.process_time() - began < 0.5  # copying it at every piece would take 5 s
