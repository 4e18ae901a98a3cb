"""How an event travels: id, type, and its JSON, written once and passed on as bytes."""

from pydantic_core import from_json
from typing_extensions import override

from contract.events import BEGINNING, LAST_WORDS, AnyEvent, Event, EventId, event_of


class Frame:
    """An event on its way: id, type, and the JSON that every reader gets as it is.

    `body` is the JSON object `{"id": ..., "at": <unix seconds>, "type": ..., ...}`. Readers pass
    it on without parsing, which is what makes a follower cheap. `id` is None for an event that
    is only told live and never logged (a fresh `queued`).
    """

    __slots__ = ("body", "id", "type")

    def __init__(self, id: EventId | None, type: str, body: bytes) -> None:
        """Take the parts as they are."""
        self.id = id
        self.type = type
        self.body = body

    @classmethod
    def of(cls, id: EventId | None, at: float, event: Event) -> "Frame":
        """Write an event into a frame; `at` is unix seconds."""
        fields = event.__pydantic_serializer__.to_json(event, exclude_none=not event.shows_null)
        head = b'{"id":"%d-%d","at":%.3f,' % (*id, at) if id else b'{"at":%.3f,' % at
        return cls(id, event.type, head + fields[1:])

    @classmethod
    def from_wire(cls, data: bytes) -> "Frame":
        """Read what `to_wire` wrote: `<id> <type> <body>`."""
        id_text, type_text, body = data.split(b" ", 2)
        attempt, seq = id_text.split(b"-")
        return cls(EventId(int(attempt), int(seq)), type_text.decode(), body)

    def to_wire(self) -> bytes:
        """The form in the log and on the channel."""
        return b"%s %s %s" % (str(self.id or BEGINNING).encode(), self.type.encode(), self.body)

    @property
    def is_last(self) -> bool:
        """Whether this ends the log."""
        return self.type in LAST_WORDS

    @property
    def event(self) -> AnyEvent:
        """The event, parsed; Unknown if a newer version wrote what this one does not know."""
        fields = from_json(self.body)
        fields.pop("id", None)
        fields.pop("at", None)
        return event_of(fields)

    @property
    def at(self) -> float:
        """Unix seconds at which it was said."""
        return float(from_json(self.body)["at"])

    @override
    def __eq__(self, other: object) -> bool:
        """Two frames are equal when they would read the same."""
        return isinstance(other, Frame) and self.body == other.body

    @override
    def __hash__(self) -> int:
        """Of the bytes."""
        return hash(self.body)

    @override
    def __repr__(self) -> str:
        """For a failed test."""
        return f"Frame({self.body.decode()})"
