"""Deliveries of webhooks: from the outbox into a queue for each receiver, and out of it.

A receiver is a webhook, or an address that requests name; it has a name, `<tenant>/<id>`. The first
delivery of its queue is the only one that is tried, so that a receiver gets events in the order of
the ends, and one that fails holds back only itself. The webhooks of a tenant are a lane, and so are
the addresses that its requests name: no lane can fill another's share. One shim delivers at a time,
by a lease; what one that died had sent without noting it is sent again with the same id.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import uuid4

from contract import redis_keys
from contract.webhooks.webhook_models import CALLBACKS, MOST_DELIVERIES, Delivery
from contract.wire import decode, encode, finite
from relay.connection import Argument, Connection, Hash, ScriptCall
from relay.scripts.loader import load
from relay.turns.list_turns import list_turns
from relay.webhooks.notices import Notice
from relay.webhooks.receivers import OutboxEntry, Receiver, Routed, StoredDelivery

_KEPT_S: Final = 7 * 86400
"""Seconds for which ended deliveries are listed after the last one."""
_CALLBACK_STATE_S: Final = 7200
"""Seconds for which the failures of an address that requests name are remembered: longer than the
longest pause. There may be as many as jobs; a webhook's are kept as its deliveries are."""
_SHOWN_WAITING: Final = 1000
_COUNT: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
"""What is no such number was not written by the fleet, and counts as none."""


class ReceiverState(NamedTuple):
    """How the tries at a receiver have gone since its last success."""

    entry: str = ""
    """The delivery that `tries` are of: its id in the queue."""
    tries: int = 0
    failures: int = 0
    """Tries that have failed."""
    lost: int = 0
    """Deliveries that were given up."""
    error: str = ""

    @classmethod
    def of(cls, fields: Hash) -> "ReceiverState":
        """From the fields of its hash."""
        text = {
            name.decode(errors="replace"): value.decode(errors="replace")
            for name, value in fields.items()
        }
        counts = (text.get(name, "0") for name in ("tries", "failures", "lost"))
        tries, failures, lost = (int(each) if _COUNT.fullmatch(each) else 0 for each in counts)
        return cls(text.get("entry", ""), tries, failures, lost, text.get("error", ""))


class FirstDelivery(NamedTuple):
    """The first delivery of a receiver's queue."""

    receiver: Receiver
    entry: str
    delivery: StoredDelivery
    state: ReceiverState

    @property
    def tries(self) -> int:
        """How often it was tried before."""
        return self.state.tries if self.state.entry == self.entry else 0


class TryOutcome(NamedTuple):
    """How a try went."""

    outcome: Literal["retry", "delivered", "failed"]
    status: int | None
    """The receiver's HTTP status."""
    error: str
    due_at: float
    """When this delivery, or the next one, is tried (unix seconds)."""


class DueReceivers(NamedTuple):
    """Receivers whose first delivery is due."""

    next_s: float | None
    """Seconds until a lane is due that is not yet; None: there is none."""
    lanes: Mapping[str, Sequence[Receiver]]
    """By lane, the longest waiting first."""


class QueueLimits(NamedTuple):
    """How many deliveries may wait."""

    receiver: int
    tenant: int


_UNREADABLE: Final = StoredDelivery(id="", type="job.done", subject="", at=0.0, webhook="", body="")


class DeliveryQueue:
    """The outbox, and the queues of all receivers; methods raise RelayUnavailable."""

    def __init__(self, connection: Connection, limits: QueueLimits) -> None:
        """Work through this connection."""
        self._connection = connection
        self._limits = limits

    @property
    def now(self) -> float:
        """Unix seconds by Redis's clock."""
        return self._connection.now()

    async def outbox(self, most: int) -> list[OutboxEntry]:
        """The oldest entries of the outbox. Raises RelayUnavailable."""
        found = await self._connection.command("XRANGE", redis_keys.OUTBOX, "-", "+", "COUNT", most)
        return [OutboxEntry(id.decode(errors="replace"), _notice(fields)) for id, fields in found]

    async def route(self, entries: Sequence[tuple[OutboxEntry, Sequence[Routed]]]) -> list[int]:
        """Move entries from the outbox to queues. Returns how many deliveries of each were dropped.

        What another process has moved is left alone. A damaged key of a receiver is named, and
        keeps nothing from others.

        Raises RelayUnavailable.
        """
        return await self._told(*[route(each, routed, self._limits) for each, routed in entries])

    async def _told(self, *calls: ScriptCall[tuple[int, str]]) -> list[int]:
        """Run scripts that pass over damaged keys of one receiver, which are named here."""
        found = await self._connection.calls(calls)
        for call, (_, damage) in zip(calls, found, strict=True):
            if damage:
                await self._connection.name_damaged(call.keys, damage)
        return [count for count, _ in found]

    async def due(self, most_lanes: int, most: int) -> DueReceivers:
        """What is due by Redis's clock, of at most so many lanes and so many receivers of each.

        What is no receiver of its lane leaves it, or it would be due for ever.

        Raises RelayUnavailable.
        """
        next_s, lanes = await self._connection.call(due(most_lanes, most))
        found: dict[str, list[Receiver]] = {}
        for lane, names in lanes.items():
            known = {
                each.name.encode(): each for each in map(_receiver, names) if each.lane == lane
            }
            found[lane] = [known[name] for name in names if name in known]
            if strange := [name for name in names if name not in known]:
                key = redis_keys.webhook_lane(lane)
                self._connection.pass_over(key, ValueError(f"{strange[0]!r:.80} is no receiver"))
                await self._connection.command("ZREM", key, *strange)
        return DueReceivers(next_s, found)

    async def first(self, receiver: Receiver) -> FirstDelivery | None:
        """The first delivery of a receiver; None if none waits. Raises RelayUnavailable."""
        queue, state, *_ = receiver.keys
        found, fields = await self._connection.pipeline(
            [("XRANGE", queue, "-", "+", "COUNT", 1), ("HGETALL", state)]
        )
        for entry, stored in found:
            if (delivery := _delivery(stored)) is not None:
                return FirstDelivery(
                    receiver, entry.decode(errors="replace"), delivery, ReceiverState.of(fields)
                )
        # One that cannot be read leaves the queue; an empty queue is not due any more.
        unreadable = found[0][0].decode(errors="replace") if found else ""
        lost = FirstDelivery(receiver, unreadable, _UNREADABLE, ReceiverState.of(fields))
        await self.settle(lost, TryOutcome("failed", None, "it cannot be read", self.now))
        return None

    async def settle(self, first: FirstDelivery, tried: TryOutcome) -> bool:
        """Note how a try went; False if another delivery is the first one by now.

        Raises RelayUnavailable.
        """
        (is_first,) = await self._told(settle(first, tried))
        return bool(is_first)

    async def clear(self, receiver: Receiver, reason: str) -> int:
        """Drop what waits for a receiver; it stays listed. Returns how many.

        Raises RelayUnavailable.
        """
        return await self._connection.call(clear(receiver, reason))

    async def put_again(
        self, receiver: Receiver, deliveries: Iterable[StoredDelivery]
    ) -> tuple[int, int]:
        """Add deliveries to a queue again. Returns how many, and how many had no room.

        Raises RelayUnavailable.
        """
        return await self._connection.call(replay(receiver, list(deliveries), self._limits))

    async def hasten(self, receiver: Receiver) -> bool:
        """Have what waits tried now, and its pauses begin anew. Returns whether anything waits.

        Raises RelayUnavailable.
        """
        return await self._connection.call(hasten(receiver))

    async def announce(self) -> None:
        """Have the deliverer look for due deliveries now. Raises RelayUnavailable."""
        await self._connection.command("PUBLISH", redis_keys.OUTBOX, "")

    async def waiting(self, receiver: Receiver, most: int) -> list[StoredDelivery]:
        """What waits for a receiver, in order. Raises RelayUnavailable."""
        found = await self._connection.command(
            "XRANGE", receiver.keys[0], "-", "+", "COUNT", min(most, _SHOWN_WAITING)
        )
        return [each for _, fields in found if (each := _delivery(fields)) is not None]

    async def view(self, receiver: Receiver) -> tuple[int, ReceiverState, float | None]:
        """How many deliveries wait, how the last tries went, and when the next one is made.

        Raises RelayUnavailable.
        """
        queue, state, _, lane = receiver.keys
        count, fields, due_at = await self._connection.pipeline(
            [
                ("XLEN", queue),
                ("HGETALL", state),
                ("ZSCORE", lane, receiver.name),
            ]
        )
        return count, ReceiverState.of(fields), finite(due_at)

    async def ended(self, receiver: Receiver) -> list[tuple[StoredDelivery, Delivery]]:
        """Deliveries of its webhook that have ended, the newest first; 1,000 at most.

        Raises RelayUnavailable.
        """
        ended: list[tuple[StoredDelivery, Delivery]] = []
        async with list_turns().turn(receiver.tenant):
            found = await self._connection.command(
                "XREVRANGE", receiver.keys[2], "+", "-", "COUNT", MOST_DELIVERIES
            )
            for id, fields in found:
                with self._connection.passing_over(f"{receiver.keys[2]}, {id.decode()}"):
                    stored = decode(StoredDelivery, fields[b"d"])
                    ended.append((stored, shown(stored, fields, id.decode())))
        return ended

    async def forget(self, receiver: Receiver) -> None:
        """Delete the list of ended deliveries of its webhook. Raises RelayUnavailable."""
        await self._connection.command("DEL", receiver.keys[2])

    async def hold(self, process: str, ttl_s: float) -> bool:
        """Take or renew the deliverer's lease; False if another process has it.

        Raises RelayUnavailable.
        """
        args: list[Argument] = [process, int(ttl_s * 1000), redis_keys.DELIVERER]
        call = ScriptCall(load("maintainer/renew"), [redis_keys.DELIVERER], args, bool)
        return await self._connection.call(call)

    async def is_held(self) -> bool:
        """Whether any process has the lease. Raises RelayUnavailable."""
        return bool(await self._connection.command("EXISTS", redis_keys.DELIVERER))

    async def release(self, process: str) -> None:
        """Give the lease back, so that another process takes it at once.

        Raises RelayUnavailable.
        """
        args: list[Argument] = [process, redis_keys.DELIVERER]
        await self._connection.call(
            ScriptCall(load("maintainer/resign"), [redis_keys.DELIVERER], args, bool)
        )


def shown(stored: StoredDelivery, fields: Hash, stamp: str) -> Delivery:
    """A delivery that has ended as clients see it; `stamp` is the id of its entry."""
    status = fields.get(b"status", b"")
    return Delivery.model_validate(
        {
            **stored.model_dump(exclude={"body", "forget"}),
            "state": fields.get(b"state", b"failed").decode(errors="replace"),
            "tries": int(fields.get(b"tries", 0)),
            "status": int(status) if status else None,
            "error": fields.get(b"error", b"").decode(errors="replace"),
            "ended_at": int(stamp.partition("-")[0]) / 1000,
        }
    )


def _notice(fields: Hash) -> Notice | None:
    try:
        return decode(Notice, fields[b"e"])
    except (ValueError, KeyError):
        return None


def _delivery(fields: Hash) -> StoredDelivery | None:
    try:
        return decode(StoredDelivery, fields[b"d"])
    except (ValueError, KeyError):
        return None


# Scripts of relay/lua/webhooks.


def route(
    entry: OutboxEntry, routed: Sequence[Routed], limits: QueueLimits
) -> ScriptCall[tuple[int, str]]:
    """Take an entry from the outbox and give it to its receivers.

    Returns how many deliveries were dropped, and the error of a damaged key (empty: none).
    """
    keys = [redis_keys.OUTBOX, redis_keys.WEBHOOKS_DUE, redis_keys.WEBHOOKS_WAITING]
    tenant = entry.notice.tenant if entry.notice else ""
    args: list[Argument] = [
        entry.id, tenant, limits.receiver, limits.tenant, MOST_DELIVERIES, _KEPT_S,
    ]  # fmt: skip
    for receiver, delivery, refusal in routed:
        queue, _, deliveries, lane = receiver.keys
        keys += [queue, deliveries, lane]
        args += [receiver.lane, receiver.name, encode(delivery), refusal]
    return ScriptCall(load("webhooks/route"), keys, args, _with_damage)


def due(
    most_lanes: int, most: int
) -> ScriptCall[tuple[float | None, Mapping[str, Sequence[bytes]]]]:
    """The names of what is due, of at most so many lanes and so many receivers of each.

    With the seconds until more is; None: nothing waits for a time.
    """
    args: list[Argument] = [redis_keys.webhook_lane("*"), most_lanes, most]
    return ScriptCall(load("webhooks/due"), [redis_keys.WEBHOOKS_DUE], args, _due)


def settle(first: FirstDelivery, tried: TryOutcome) -> ScriptCall[tuple[int, str]]:
    """Note how a try of a receiver's first delivery went.

    Returns 0 if another one is the first, and the error of a damaged list (empty: none).
    """
    receiver, state = first.receiver, first.state
    has_failed, is_lost = tried.outcome != "delivered", tried.outcome == "failed"
    args: list[Argument] = [
        receiver.lane, receiver.name, receiver.tenant, first.entry, tried.outcome, first.tries + 1,
        state.failures + has_failed, state.lost + is_lost, tried.status or "", tried.error,
        f"{tried.due_at:.6f}", MOST_DELIVERIES, _KEPT_S,
        _CALLBACK_STATE_S if receiver.webhook == CALLBACKS else _KEPT_S,
    ]  # fmt: skip
    return ScriptCall(load("webhooks/settle"), _queue_keys(receiver), args, _with_damage)


def clear(receiver: Receiver, reason: str) -> ScriptCall[int]:
    """Drop what waits for a receiver, and list it as dropped. Returns how many."""
    args: list[Argument] = [
        receiver.lane, receiver.name, receiver.tenant, reason, MOST_DELIVERIES, _KEPT_S,
    ]  # fmt: skip
    return ScriptCall(load("webhooks/clear"), _queue_keys(receiver), args, int)


def hasten(receiver: Receiver) -> ScriptCall[bool]:
    """Have what waits for a receiver tried now. Returns whether anything waits."""
    _, state, _, lane = receiver.keys
    keys = [state, lane, redis_keys.WEBHOOKS_DUE]
    return ScriptCall(load("webhooks/hasten"), keys, [receiver.lane, receiver.name], bool)


def replay(
    receiver: Receiver, deliveries: Sequence[StoredDelivery], limits: QueueLimits
) -> ScriptCall[tuple[int, int]]:
    """Add deliveries to a receiver's queue. Returns how many, and how many had no room."""
    queue, state, _, lane = receiver.keys
    keys = [queue, state, lane, redis_keys.WEBHOOKS_DUE, redis_keys.WEBHOOKS_WAITING]
    args: list[Argument] = [
        uuid4().hex, receiver.lane, receiver.name, receiver.tenant, limits.receiver, limits.tenant,
        _KEPT_S, *map(encode, deliveries),
    ]  # fmt: skip
    return ScriptCall(load("webhooks/replay"), keys, args, _replayed)


def _queue_keys(receiver: Receiver) -> list[str]:
    return [*receiver.keys, redis_keys.WEBHOOKS_DUE, redis_keys.WEBHOOKS_WAITING]


def _with_damage(reply: Any) -> tuple[int, str]:
    count, damage = reply or (0, b"")
    return int(count), damage.decode(errors="replace")


def _due(reply: Any) -> tuple[float | None, Mapping[str, Sequence[bytes]]]:
    next_s, *lanes = reply
    found = {lane.decode(errors="replace"): names for lane, names in lanes}
    return float(next_s) if next_s else None, found


def _receiver(name: bytes) -> Receiver:
    return Receiver.named(name.decode(errors="replace"))


def _replayed(reply: Any) -> tuple[int, int]:
    return int(reply[0]), int(reply[1])
