"""Server-Sent Events: what `encode` writes, `EventStream` reads."""

import pytest
from typing_extensions import override

from contract.sse import KEEP_ALIVE, EventStream, encode


class Events(EventStream[tuple[str, bytes, bytes]]):
    """Events as name, id and data."""

    __slots__ = ()

    @override
    def _made(self, name: str, id: bytes, data: bytes) -> tuple[str, bytes, bytes]:
        return name, id, data


@pytest.mark.parametrize(
    ("event", "encoded"),
    [
        (("", b"", b"{}"), b"data: {}\n\n"),
        (("done", b"", b"{}"), b"event: done\ndata: {}\n\n"),
        (("done", b"1-2", b"{}"), b"id: 1-2\nevent: done\ndata: {}\n\n"),
    ],
)
def test_an_event_is_read_as_it_was_encoded(
    event: tuple[str, bytes, bytes], encoded: bytes
) -> None:
    name, id, data = event

    assert encode(data, name=name.encode(), id=id) == encoded
    assert Events().feed(KEEP_ALIVE + encoded) == [event]
