"""The fleet's totals: what all its processes have counted, in one hash that outlives them.

A process sends what it has counted since its last report, with a number that rises by one. The
script adds a report once, also if it is sent again after a lost reply. So no job costs Redis a
command, a process that ends leaves its counts behind, and a read is one command whatever number of
processes there have been. A process that is killed loses what it has counted since its last report.
"""

import json
from collections.abc import Sequence
from secrets import token_hex
from typing import Final, NamedTuple

from contract import redis_keys
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load
from telemetry.series import OTHER, Field

_TTL_S: Final = 30 * 86400
"""Seconds after the last report of any process for which the totals are kept."""
_LONGEST_SHOWN: Final = 100
"""Bytes of a damaged name."""
_SEQUENCE_TTL_S: Final = 3600
"""Seconds after which a process that has sent no report may repeat none."""


class Increase(NamedTuple):
    """An amount to add to a total."""

    field: Field
    amount: float
    set: str = ""
    """Which set of names one of the labels is of, `model` or `tenant`; empty: of none."""
    at: int = 0
    """The place of that label in `field`."""


class Totals(NamedTuple):
    """The totals as they were read."""

    since: float
    """Unix seconds of the first report; another value: the totals began anew."""
    values: dict[Field, float]


class FleetTotals:
    """Adds to the totals, and reads them."""

    def __init__(self, connection: Connection, most_names: int = 0) -> None:
        """Tell at most `most_names` names of each set apart in the whole fleet."""
        self._connection = connection
        # Not the worker's name, which an operator may give to the next process as well.
        self._process = token_hex(8)
        self._most_names = most_names
        self._number = 0
        self._unanswered: Sequence[Increase] = ()

    async def add(self, increases: Sequence[Increase]) -> None:
        """Add to the totals, once; call `flush` before, where an earlier call has raised.

        Raises RelayUnavailable: whether they were added is then unknown, until `flush` returns.
        """
        self._number += 1
        self._unanswered = increases
        await self.flush()

    async def flush(self) -> None:
        """Send again, under the same number, what has no reply yet; raises RelayUnavailable."""
        if not self._unanswered:
            return
        report = add(
            self._process, self._number, self._unanswered,
            most_names=self._most_names, now=self._connection.now(),
        )  # fmt: skip
        await self._connection.call(report)
        self._unanswered = ()

    async def read(self) -> Totals:
        """All totals, in one command; raises RelayUnavailable.

        A field that no process of the fleet has written is passed over.
        """
        key = redis_keys.METRICS
        (fields,) = await self._connection.replies([("HGETALL", key)])
        since, values = 0.0, dict[Field, float]()
        for name, value in (fields or {}).items():
            with self._connection.passing_over(f"{key}, field {name[:_LONGEST_SHOWN]!r}"):
                if name == b"since":
                    since = float(value)
                elif name.startswith(b"["):
                    values[_field(name)] = float(value)
        return Totals(since, values)


def add(
    process: str, number: int, increases: Sequence[Increase], *, most_names: int, now: float
) -> ScriptCall[bool]:
    """Add a report to the totals; False if the process has sent this number before.

    `now` is in unix seconds.
    """
    args: list[Argument] = [number, _TTL_S, _SEQUENCE_TTL_S, most_names, f"{now:.3f}"]
    for field, amount, set_name, at in increases:
        other = (*field[:at], OTHER, *field[at + 1 :]) if set_name else field
        name = field[at] if set_name else ""
        args += [set_name, name, _text(field), _text(other), repr(amount)]
    keys = [redis_keys.METRICS, redis_keys.metrics_sequence(process)]
    return ScriptCall(load("metrics/add"), keys, args, bool)


def _text(field: Field) -> str:
    return json.dumps(field, separators=(",", ":"))


def _field(text: bytes) -> Field:
    """The name of a total; raises ValueError."""
    field = tuple(json.loads(text))
    if len(field) < 2 or not all(isinstance(each, str) for each in field):  # noqa: PLR2004 - name, part
        raise ValueError("it is no name of a total")
    return field
