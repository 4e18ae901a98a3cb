"""How many frames a client may send on a WebSocket: no route wants any, so few are many.

A frame costs a hundred times what its six bytes cost to send, and the library answers every ping
that is in one read before anything else has a turn: 1.2 MB of pings, sent without a key, kept a
shim from everybody for seconds. So the parser itself counts, and ends at the first frame too many.
"""

from collections.abc import Callable
from typing import Any, Final

from typing_extensions import override
from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame
from websockets.server import ServerProtocol

MOST_FRAMES: Final = 100
"""That a client may send at once, of any sort: also fragments of messages, and empty ones."""
FRAMES_PER_S: Final = 5.0
"""That it may send for ever; libraries send a ping every some seconds."""
TOO_MANY_WORDS: Final = (
    f"A client may send {MOST_FRAMES} frames at once, and {FRAMES_PER_S:g} a second."
)


class TooManyFrames(ProtocolError):
    """Ends the parser: its connection was closed with 1008 (policy violation)."""


class FrameRate:
    """What a client may still send: `MOST_FRAMES`, of which `FRAMES_PER_S` come back."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Nothing was sent; `now` is a clock in seconds."""
        self._now = now
        self._at = now()
        self._left = float(MOST_FRAMES)

    def take(self) -> bool:
        """Whether one more frame is within the bound."""
        now = self._now()
        self._left = min(float(MOST_FRAMES), self._left + (now - self._at) * FRAMES_PER_S)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class CountedFrames(ServerProtocol):
    """The library's protocol, whose parser does not go on behind a frame beyond the rate."""

    def __init__(self, rate: FrameRate, **options: Any) -> None:
        """Options are those of `ServerProtocol`."""
        super().__init__(**options)
        self._rate = rate

    @override
    def recv_frame(self, frame: Frame) -> None:
        if not self._rate.take():
            self.fail(CloseCode.POLICY_VIOLATION, TOO_MANY_WORDS)
            raise TooManyFrames(TOO_MANY_WORDS)
        super().recv_frame(frame)
