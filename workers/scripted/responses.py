"""Responses of the scripted server with the faults, delays and packet splits of a script."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from workers.scripted import wire
from workers.scripted.catalog import Catalog
from workers.scripted.http import Ending, StreamedReply, framed
from workers.scripted.script import Script

SSE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
_ENDINGS: Final[dict[str, Ending]] = {
    "after": "end",
    "cut": "cut",
    "drop": "cut",
    "die": "cut",
    "reset": "reset",
    "stall": "stall",
    "error": "end",
}


class ScriptedResponses:
    """Builds responses in every wire format; counts the failures of each model."""

    def __init__(self, catalog: Catalog) -> None:
        """`catalog` has the models and their load state."""
        self.catalog = catalog
        self._failed: Counter[str] = Counter()

    def fault(self, script: Script) -> str | None:
        """The fault of this request, if any."""
        if script.fail is None or self._failed[script.model] >= script.times:
            return None
        if script.times != math.inf:
            self._failed[script.model] += 1
        return script.fail

    def delay_s(self, script: Script) -> float:
        """Seconds before the response head; loads a cold model."""
        cold_s = 0.0 if self.catalog.is_warm(script.model) else script.load
        if cold_s:
            self.catalog.set_warm(script.model, warm=True)
        return cold_s + script.first

    def flow(
        self,
        script: Script,
        packets: Sequence[bytes],
        fault: str | None,
        skipped: int,
        content_type: str,
        *,
        error: tuple[bytes, ...] = (),
    ) -> StreamedReply | None:
        """The response with its fault; None drops the connection.

        The first `skipped` packets contain no word; `error` is the packets of an error in the
        middle of the stream, by default those of the script's style.
        """
        if fault == "drop" and not script.after:
            return None
        ending: Ending = "end"
        if fault is not None and fault != "refuse":
            ending = _ENDINGS[fault]
            packets = packets[: skipped + script.after]
        if fault == "error":
            packets = (*packets, *(error or _default_error(script, content_type)))
        return StreamedReply(
            packets=_framed(script, tuple(packets)),
            content_type=content_type,
            delay_s=self.delay_s(script),
            gap_s=1 / script.rate if script.rate else 0.0,
            ending=ending,
            is_slow=bool(script.wire & {"trickle", "split"}),
        )


def _default_error(script: Script, content_type: str) -> tuple[bytes, ...]:
    if content_type == NDJSON:
        return (wire.line({"error": wire.MESSAGE}),)
    return wire.stream_error(script.style)


@lru_cache(maxsize=64)
def _framed(script: Script, packets: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(framed(packet) for packet in wire.split_packets(script, packets))
