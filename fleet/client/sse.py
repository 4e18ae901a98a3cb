"""From the bytes of a shim's event stream to frames. Pure: feed it, take what is complete.

Lines are those of the clause and no others: words may hold U+2028 and other characters that
Python's `splitlines`, and so `httpx.Response.iter_lines`, would cut at.
"""

from typing_extensions import override

from contract.events import EventId, Frame
from contract.sse import EventStream


class Decoder(EventStream[Frame]):
    """Puts the events of one connection together from pieces cut anywhere.

    Raises ValueError for an id that is none of ours, BadEndpoint for an event over the limit.
    """

    __slots__ = ()

    @override
    def _made(self, name: str, id: bytes, data: bytes) -> Frame:
        return Frame(EventId.parse(id.decode()) if id else None, name, data)
