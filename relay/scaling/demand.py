"""The demand in workers: one number for each queue, each backend and the fleet.

A worker serves all queues of its backend side by side, with slots of their own, so a backend wants
as many workers as its most demanding queue, and at least those that hold a job of any of them.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from contract import redis_keys
from contract.redis_keys import backend_of
from contract.roster import KnownBackend, QueueDemand, WorkerReport, workers_wanted
from relay.connection import Argument, Connection, DamagedKey
from relay.leases import Holder
from relay.roster import Roster
from relay.scheduling.later import SOON_S
from relay.scripts import queues as scripts

_MESSAGES_READ: Final = 8
"""Messages of a list that are looked at, to tell those of other applications from tickets."""


class _Counts(NamedTuple):
    """What is in a queue now."""

    waiting: int
    running: int
    holders: frozenset[str]
    is_paused: bool


class Demand(NamedTuple):
    """The demand of some queues together."""

    workers: int
    """Workers wanted, over all backends."""
    holders: frozenset[str]
    """Workers that hold a job."""
    queues: tuple[QueueDemand, ...]
    """The demand of each queue, by name."""

    @property
    def busy(self) -> int:
        """How many workers hold a job."""
        return len(self.holders)

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return sum(queue.waiting for queue in self.queues)

    @property
    def running(self) -> int:
        """Jobs that a worker holds."""
        return sum(queue.running for queue in self.queues)


class DemandReader:
    """Reads the demand from Redis, in two round trips whatever waits."""

    def __init__(self, connection: Connection) -> None:
        """Read through this connection."""
        self._connection = connection

    async def all_queues(self, roster: Roster) -> list[str]:
        """Every queue that is served, known, or held a job lately; raises RelayUnavailable."""
        members = await self._connection.command("ZRANGE", redis_keys.QUEUES, 0, -1)
        served = {queue.name for worker in roster.workers for queue in worker.queues}
        known = {queue for each in roster.known for queue in each.slots}
        return sorted(served | known | {member.decode(errors="replace") for member in members})

    async def read(self, queues: Sequence[str], roster: Roster) -> Demand:
        """The demand of these queues; one that does not exist wants no worker.

        Raises RelayUnavailable.
        """
        counts = dict(zip(queues, await self._counts(queues), strict=True))
        slots = slots_of_one(roster.workers, roster.known)
        rows = tuple(_row(queue, counts[queue], slots.get(queue, 1)) for queue in sorted(queues))
        busy_in: dict[str, set[str]] = {}
        most: dict[str, int] = {}
        for row in rows:
            backend = backend_of(row.queue)
            busy_in.setdefault(backend, set()).update(counts[row.queue].holders)
            most[backend] = max(row.workers, most.get(backend, 0))
        workers = sum(max(wanted, len(busy_in[backend])) for backend, wanted in most.items())
        return Demand(workers, frozenset[str]().union(*busy_in.values()), rows)

    async def _counts(self, queues: Sequence[str]) -> list[_Counts]:
        soon = self._connection.now() + SOON_S
        answers = await self._connection.replies(
            [words for queue in queues for words in _commands(queue, soon)]
        )
        rows = list(zip(*(iter(answers),) * 4, strict=True))
        foreign = await asyncio.gather(
            *(self._foreign(queue, row[0] or 0) for queue, row in zip(queues, rows, strict=True))
        )
        return [
            _Counts(
                waiting=(backlog or 0) + (delayed or 0) + others,
                running=len(holders or ()),
                holders=self._workers(queue, holders or ()),
                is_paused=bool(is_paused),
            )
            for queue, (backlog, delayed, holders, is_paused), others in zip(
                queues, rows, foreign, strict=True
            )
        ]

    def _workers(self, queue: str, holders: Iterable[bytes]) -> frozenset[str]:
        found: set[str] = set()
        for each in holders:
            with self._connection.passing_over(redis_keys.holders(queue)):
                found.add(Holder.parse(each.decode(errors="replace")).worker)
        return frozenset(found)

    async def _foreign(self, queue: str, backlog: int) -> int:
        """Messages of other Celery applications that wait in a queue's list."""
        try:
            length = int(await self._connection.command("LLEN", queue))
            surplus = length - backlog
            if surplus <= 0:
                return 0
            looked_at = min(length, _MESSAGES_READ)
            found = await self._connection.call(scripts.foreign(queue, looked_at))
        except DamagedKey:
            return 0
        return surplus if found == looked_at else min(found, surplus)


def _commands(queue: str, soon: float) -> tuple[tuple[Argument, ...], ...]:
    return (
        ("ZCARD", redis_keys.backlog(queue)),
        ("ZCOUNT", redis_keys.delayed(queue), "-inf", f"{soon:.3f}"),
        ("HVALS", redis_keys.holders(queue)),
        ("EXISTS", redis_keys.paused(queue)),
    )


def _row(queue: str, counts: _Counts, slots: int) -> QueueDemand:
    busy = len(counts.holders)
    wanted = workers_wanted(counts.waiting, counts.running, slots, busy)
    return QueueDemand(
        queue=queue,
        workers=busy if counts.is_paused else wanted,
        paused=counts.is_paused,
        waiting=counts.waiting,
        running=counts.running,
        busy=busy,
        slots=slots,
    )


def slots_of_one(
    workers: Iterable[WorkerReport], known: Iterable[KnownBackend]
) -> Mapping[str, int]:
    """Slots of one worker by queue: the fewest of a live one, else what is known; at least 1."""
    found = {queue: max(count, 1) for each in known for queue, count in each.slots.items()}
    live: dict[str, int] = {}
    for worker in workers:
        for queue in worker.queues:
            if queue.slots:
                live[queue.name] = min(queue.slots, live.get(queue.name, queue.slots))
    return found | live
