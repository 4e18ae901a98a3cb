"""Positions of waiting jobs, drain rates, and the views of queues for the roster."""

import math
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any, Final

from contract import redis_keys
from contract.conversations import conversation_id
from contract.errors import QueueFull
from contract.jobs import JobRecord, QueuePlace
from contract.roster import QueuePause, QueueView, WorkerReport
from relay.connection import Argument, Connection, DamagedKey, ScriptCall
from relay.order import Arrival
from relay.scheduling import later
from relay.scheduling.pauses import pause_in, schedule_in
from relay.scripts import queues as scripts
from relay.scripts.jobs import statuses

NO_WORKER: Final = "waiting for a worker to start"
"""Why a job waits in a queue that no live worker consumes."""
_MINUTES: Final = 5
"""Over which the drain rate is measured."""
_RATE_S: Final = 1.0
SURVEYED_MINUTES: Final = 15
"""For which the counters of ended jobs are kept."""
_RETRY_AFTER_S: Final = (1.0, 30.0, 120.0)
"""Least, unknown, most."""
_SMALL: Final = ", or a quarter of Redis's maxmemory"
_BOUNDS: Final = {
    -1: ("queue", "jobs", "FLEET_QUEUE_LIMIT" + _SMALL),
    -2: ("queue", "tokens", "FLEET_QUEUE_LIMIT_TOKENS"),
    -3: ("queue", "bytes", "FLEET_QUEUE_LIMIT_BYTES" + _SMALL),
    -4: ("tenant", "jobs", "the bound of its key, or FLEET_TENANT_LIMIT"),
    -5: ("tenant", "tokens", "the bound of its key, or FLEET_TENANT_LIMIT_TOKENS"),
    -6: ("tenant", "bytes", "the bound of its key, or FLEET_TENANT_LIMIT_BYTES"),
    -7: ("tenant", "jobs", "FLEET_TENANT_SHARE of what is free in FLEET_QUEUE_LIMIT" + _SMALL),
    -8: ("tenant", "tokens", "FLEET_TENANT_SHARE of what is free in FLEET_QUEUE_LIMIT_TOKENS"),
    -9: (
        "tenant",
        "bytes",
        "FLEET_TENANT_SHARE of what is free in FLEET_QUEUE_LIMIT_BYTES" + _SMALL,
    ),
}
"""By the position of a refusal: whose bound it is, of what, and what sets it."""
_AT_ONCE: Final = 200
"""Queues that one script call counts; it blocks Redis for less than a millisecond."""
_MOST_TENANTS: Final = 100
_TURNS_READ: Final = 64
"""Messages of a conversation that are looked at for one that has not ended."""
NO_ROOM: Final = (
    "Redis is nearly full, and jobs of this tenant take most of it: they go on when there is room"
)
_LIVE: Final = frozenset({"queued", "running"})
_MOST_DIGITS: Final = 15
_LEAST_S: Final = 10.0
"""Shortest time over which a rate is believed."""


class Positions:
    """Reads positions and queue views from Redis; every coroutine raises RelayUnavailable."""

    def __init__(self, connection: Connection) -> None:
        """Read through this connection."""
        self._connection = connection
        self._rates: dict[str, tuple[float, float | None]] = {}
        """When the rate of a queue was read (monotonic seconds), and the rate."""

    async def place(self, record: JobRecord) -> QueuePlace:
        """The position of a waiting job; an empty place if it does not wait.

        Raises RelayUnavailable.
        """
        if record.status != "queued":
            return QueuePlace()
        rank, due, (*counts, why) = await self._connection.pipeline(
            [
                ("ZRANK", redis_keys.backlog(record.queue), record.id),
                ("ZSCORE", redis_keys.delayed(record.queue), record.id),
                ("MGET", *self.drained(record.queue), redis_keys.paused(record.queue)),
            ]
        )
        if rank is not None:
            rate, pause = self.rate(counts), pause_in((why or b"").decode(errors="replace"))
            if pause is not None:
                return paused(rank + 1, rate, pause, self._connection.now())
            return behind(await self._earlier_turn(record), placed(rank + 1, rate))
        if due is not None:
            if reason := later.reason(record, self._connection.now()):
                return QueuePlace(reason=reason, is_scheduled=True)
            if record.tenant in self._connection.crowding:
                return QueuePlace(reason=NO_ROOM)
            wait_s = max(0.0, float(due) - self._connection.now())
            return QueuePlace(reason=f"the next attempt is due in {wait_s:.1f} s")
        return QueuePlace()

    async def _earlier_turn(self, record: JobRecord) -> str:
        """What a message waits for that runs after those before it; empty for any other job."""
        if record.conversation is None or record.conversation_policy != "queue":
            return ""
        key = redis_keys.turns(conversation_id(record.tenant, record.conversation))
        members: Any = await self._connection.command("LRANGE", key, 0, _TURNS_READ)
        ids = [member.decode(errors="replace") for member in members]
        before = ids[: ids.index(record.id)] if record.id in ids else ids
        states = await self._connection.call(statuses(before)) if before else []
        live = (id for id, status in zip(before, states, strict=True) if status in _LIVE)
        return turn_obstacle(next(live, None))

    async def recent_rate(self, queue: str) -> float | None:
        """The rate of a queue, read at most once a second; raises RelayUnavailable."""
        read_at, rate = self._rates.get(queue, (-math.inf, None))
        if monotonic() - read_at > _RATE_S:
            rate = self.rate(await self._connection.command("MGET", *self.drained(queue)))
            self._rates[queue] = (monotonic(), rate)
        return rate

    def drained(self, queue: str) -> list[str]:
        """The keys of the counters that `rate` reads, this minute first."""
        this_minute = math.floor(self._connection.now() / 60)
        return [redis_keys.drained(queue, this_minute - back) for back in range(_MINUTES)]

    def rate(self, counts: Sequence[bytes | None]) -> float | None:
        """Jobs that end a second, over the minutes in which any did; None if none did."""
        now = self._connection.now()
        recent = enumerate(counts[:_MINUTES])
        # Of more digits it is no count of ours, and may be too large for a division.
        sound = [(back, each) for back, each in recent if each and len(each) <= _MOST_DIGITS]
        ended = [(back, int(count)) for back, count in sound if count.isdigit()]
        if not ended:
            return None
        elapsed_s = max(_LEAST_S, now % 60 + 60 * max(back for back, _ in ended))
        return sum(count for _, count in ended) / elapsed_s

    async def views(self, workers: Sequence[WorkerReport]) -> list[QueueView]:
        """Every queue that a live worker serves or that held a job lately.

        Raises RelayUnavailable.
        """
        served = {queue.name for worker in workers for queue in worker.queues}
        queues = await self._with_those_of_late(served)
        answers = await self._connection.replies(
            [words for queue in queues for words in self._view_commands(queue)]
        )
        rows = list(zip(*(iter(answers),) * 6, strict=True))
        waiting = await self._connection.calls_or_none([scripts.oldest(queue) for queue in queues])
        oldest = await self._connection.replies(
            [("HGET", redis_keys.record(job_id or ""), "created_at") for job_id in waiting]
        )
        return [
            self._view(queue, row, created_at, workers)
            for queue, row, created_at in zip(queues, rows, oldest, strict=True)
        ]

    async def survey(self, served: Iterable[str]) -> list[scripts.QueueCounts]:
        """Counts of every queue in `served`, and of every one that held a job lately, by name.

        Two commands, and one more for each 200 queues. Raises RelayUnavailable.
        """
        queues = await self._with_those_of_late(served)
        this_minute = math.floor(self._connection.now() / 60)
        minutes = [this_minute - back for back in range(SURVEYED_MINUTES)]

        def counting(some: Sequence[str]) -> ScriptCall[list[scripts.QueueCounts]]:
            return scripts.survey(some, minutes, _MOST_TENANTS, self._soon())

        parts = [queues[first : first + _AT_ONCE] for first in range(0, len(queues), _AT_ONCE)]
        try:
            groups = await self._connection.calls([counting(some) for some in parts])
        except DamagedKey:
            # The others are told without a queue that has a damaged key.
            groups = []
            for queue in queues:
                group = await self._connection.call_or_none(counting([queue]), f"queue {queue}")
                groups += [] if group is None else [group]
        return [counts for group in groups for counts in group]

    async def _with_those_of_late(self, served: Iterable[str]) -> list[str]:
        """These queues and those that held a job lately, by name."""
        (members,) = await self._connection.replies([("ZRANGE", redis_keys.QUEUES, 0, -1)])
        return sorted({*served, *(member.decode(errors="replace") for member in members or ())})

    def _soon(self) -> float:
        return self._connection.now() + later.SOON_S

    async def with_schedules(self, views: Sequence[QueueView]) -> list[QueueView]:
        """The views with run windows, and how many jobs are scheduled; raises RelayUnavailable."""
        if not views:
            return []
        keys = [redis_keys.schedule(view.name) for view in views]
        counts = [
            ("ZCOUNT", redis_keys.delayed(view.name), f"({self._soon():.3f}", "+inf")
            for view in views
        ]
        texts, *scheduled = await self._connection.replies([("MGET", *keys), *counts])
        return [
            view.model_copy(
                update={
                    "windows": schedule_in((text or b"").decode(errors="replace")).windows,
                    "scheduled": count or 0,
                }
            )
            for view, text, count in zip(views, texts, scheduled, strict=True)
        ]

    def _view_commands(self, queue: str) -> list[Sequence[Argument]]:
        return [
            ("ZCARD", redis_keys.backlog(queue)),
            ("ZCOUNT", redis_keys.delayed(queue), "-inf", f"{self._soon():.3f}"),
            ("ZCARD", redis_keys.leases(queue)),
            ("HMGET", redis_keys.load(queue), "tokens", "bytes"),
            ("HGET", redis_keys.scheduled(queue), "bytes"),
            ("MGET", *self.drained(queue), redis_keys.paused(queue)),
        ]

    def _view(
        self, queue: str, row: Sequence[Any], oldest: bytes | None, workers: Sequence[WorkerReport]
    ) -> QueueView:
        depth, delayed, held, load, later, (*counts, why) = row
        tokens, waiting = (self._number(each, redis_keys.load(queue)) for each in load or (0, 0))
        later = self._number(later, redis_keys.scheduled(queue))
        since = self._number(oldest, f"the record of the oldest job of {queue}")
        reports = [q for worker in workers for q in worker.queues if q.name == queue]
        rate = self.rate(counts)
        return QueueView(
            name=queue,
            depth=depth or 0,
            delayed=delayed or 0,
            tokens=int(tokens),
            kept_bytes=int(waiting) + int(later),
            oldest_s=round(self._connection.now() - since, 1) if since else None,
            in_flight=held or 0,
            slots=sum(report.slots for report in reports),
            workers=len(reports),
            drain_per_s=rate,
            eta_s=round((depth or 0) / rate, 1) if rate and not why else None,
            paused=pause_in((why or b"").decode(errors="replace")),
        )

    def _number(self, text: bytes | int | None, key: str) -> float:
        """A finite number of a key; 0 without it, or if it is none."""
        with self._connection.passing_over(key):
            if math.isfinite(number := float(text or 0)):
                return number
        return 0.0


def placed(position: int, rate: float | None, obstacle: str = "") -> QueuePlace:
    """A place in the backlog, with the time until its turn at this rate (jobs a second).

    While an obstacle stops all jobs of the queue, that time is unknown.
    """
    place = QueuePlace(
        position=position,
        eta_s=round(position / rate, 1) if rate and not obstacle else None,
        reason=ahead(position - 1),
    )
    return behind(obstacle, place)


def paused(position: int, rate: float | None, pause: QueuePause, now: float) -> QueuePlace:
    """A place in the backlog of a paused queue; `now` is in unix seconds.

    The time until its turn includes the pause, if its end is known.
    """
    place = placed(position, rate, pause.text)
    ends_in_s = None if pause.until is None else max(0.0, pause.until - now)
    eta_s = None if rate is None or ends_in_s is None else round(ends_in_s + position / rate, 1)
    return place.model_copy(update={"eta_s": eta_s, "is_paused": True})


def behind(obstacle: str, place: QueuePlace) -> QueuePlace:
    """The place with an obstacle to all jobs of its queue as the reason, before its own.

    An empty obstacle changes nothing.
    """
    if not obstacle:
        return place
    is_next = place.position in (None, 1)
    return place.model_copy(
        update={"reason": obstacle if is_next else f"{obstacle}; {place.reason}"}
    )


def turn_obstacle(earlier: str | None) -> str:
    """Why a message waits for an earlier one of its conversation, which is this job."""
    return f"job {earlier} of its conversation has not ended" if earlier else ""


def ahead(count: int) -> str:
    """How many jobs come first, as a phrase."""
    if count == 0:
        return "next in line"
    return "1 job before yours" if count == 1 else f"{count} jobs before yours"


def queue_full(arriving: Arrival, place: scripts.Place, rate: float | None) -> QueueFull:
    """The error for a job that a queue has refused; `rate` is in jobs a second."""
    queue, tenant = arriving.queue, arriving.tenant
    bound, held, limit, _ = place
    scope, what, remedy = _BOUNDS[bound]
    least_s, unknown_s, most_s = _RETRY_AFTER_S
    whose = f"holds {held} {what}" + (f" of tenant {tenant}" if scope == "tenant" else "")
    return QueueFull(
        f"queue {queue} {whose}, and may hold {limit} ({remedy}): try again later, send less at "
        "once, or start more workers",
        retry_after_s=max(least_s, min(most_s, 1 / rate)) if rate else unknown_s,
        queue=queue,
        scope=scope,
        limit=limit,
        held=held,
        eta_s=round(held / rate, 1) if rate and what == "jobs" else None,
    )
