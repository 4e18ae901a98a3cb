"""Messages of conversations enter their queue as their policy says (docs/adr/0055)."""

from typing import Any, Final, NamedTuple

from contract.conversations import ConversationTurn
from contract.errors import ConversationBusy
from relay.connection import Connection, ScriptCall
from relay.order import Arrival
from relay.scripts import queues
from relay.scripts.jobs import HeldKey, NewJob
from relay.scripts.turn_scripts import REFUSED, KeyToHold, begin_turn
from relay.tickets import ticket

_UNATTENDED_S: Final = 3600.0
"""Seconds behind a deadline for which a conversation remembers its message."""
INTERRUPTED: Final = "a newer message of its conversation has come"
"""Why a message was cancelled."""


class EnqueuedTurn(NamedTuple):
    """A message that is in its queue, or was refused there."""

    created_at: float
    """Unix seconds."""
    place: queues.Place
    earlier: tuple[str, ...]
    """Jobs of its conversation that have not ended, as far as its policy needs them."""


class TurnAdmission:
    """Enqueues messages of conversations."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def enqueue(
        self, new: NewJob, arriving: Arrival, turn: ConversationTurn, key: KeyToHold | None
    ) -> EnqueuedTurn | HeldKey:
        """Write the record, then the backlog; a key that has a job leads to that.

        Raises ConversationBusy, RelayUnavailable.
        """
        after_s = self._connection.settings.log_ttl_s
        if new.deadline_s is not None:  # by which it has ended, unless nobody has maintained
            after_s = min(after_s, _UNATTENDED_S)
        ttl_s = int(after_s + (new.deadline_s or 0))
        begin = begin_turn(new, turn, ttl_s, key)
        enqueue = queues.enqueue(arriving, ticket(arriving.queue))
        if key is None and turn.policy != "reject":
            calls: list[ScriptCall[Any]] = [begin, enqueue]
            begun, place = await self._connection.calls(calls)
        else:
            # Only one that is not refused and new may be put into the queue.
            begun = await self._connection.call(begin)
            if begun.state == REFUSED:
                raise _busy(begun.earlier[0])
            if begun.created_at is None:
                return HeldKey(begun.job_id, begun.queue, begun.state)
            place = await self._connection.call(enqueue)
        return EnqueuedTurn(begun.created_at, place, begun.earlier)


def _busy(earlier: str) -> ConversationBusy:
    return ConversationBusy(
        f"job {earlier} of this conversation has not ended, and conversation_policy is reject: "
        "wait for it, cancel it, or send another policy (queue, interrupt, parallel)",
        job=earlier,
    )
