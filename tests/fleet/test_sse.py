"""Bytes cut anywhere become the same frames."""

import pytest

from contract.events import EventId
from fleet.sse import Decoder

STREAM = (
    ": hello\n\n"
    'id: 1-1\nevent: started\ndata: {"id":"1-1","type":"started"}\n\n'
    'event: queued\ndata: {"type":"queued"}\n\n'
    'id: 1-2\r\nevent: delta\r\ndata: {"content":"a\u2028b 🚀"}\r\n\r\n'
).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    decoder = Decoder()
    pieces = (STREAM[at : at + size] for at in range(0, len(STREAM), size))

    frames = [frame for piece in pieces for frame in decoder.feed(piece)]

    assert [(frame.id, frame.type) for frame in frames] == [
        (EventId(1, 1), "started"),
        (None, "queued"),
        (EventId(1, 2), "delta"),
    ]
    assert frames[2].body == '{"content":"a\u2028b 🚀"}'.encode()


def test_a_keep_alive_is_no_event() -> None:
    assert Decoder().feed(b": still here\n\n") == []
