"""What a follower has seen last, in the form in which it says so when it comes back."""

import re
from typing import Final, NamedTuple

from typing_extensions import override

from contract.events import BEGINNING, EventId

_FORM: Final = re.compile(r"^(\d{1,18})-(\d{1,18})(?:\.([0-9a-f]{1,32}))?$")


class Cursor(NamedTuple):
    """`<attempt>-<seq>`, the id of an event; `.<nonce>` of its attempt makes it exact.

    The nonce stands in `started`. It only matters where Redis came back with a shorter past and
    gave the number of an attempt a second time.
    """

    id: EventId = BEGINNING
    nonce: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read what `str` wrote; raises ValueError on anything else."""
        match = _FORM.match(text)
        if match is None:
            message = f"an event id looks like 2-17, not {text[:40]!r}"
            raise ValueError(message)
        return cls(EventId(int(match[1]), int(match[2])), match[3])

    @override
    def __str__(self) -> str:
        """The form that callers send."""
        return f"{self.id}.{self.nonce}" if self.nonce else str(self.id)
