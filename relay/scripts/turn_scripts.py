"""Scripts of conversations: their messages that have not ended, and the addresses they prefer.

Also used by `jobs/begin_turn`, `jobs/start_turn`, `queues/claim` and `queues/enqueue`, which read
or write both for messages of a conversation only.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from contract import redis_keys
from contract.conversations import ConversationTurn
from contract.events import Started
from contract.tenants import DEFAULT_TENANT
from relay.connection import Argument, Hash, ScriptCall, pairs
from relay.scripts.jobs import NewJob, event_fields
from relay.scripts.loader import load

REFUSED: Final = -2
"""State of a message that may not run beside an earlier one."""


class KeyToHold(NamedTuple):
    """The Idempotency-Key of a new message."""

    name: str
    """Of its hash in Redis."""
    fingerprint: str
    ttl_s: int
    renew_s: float


class BegunTurn(NamedTuple):
    """What became of a new message."""

    job_id: str
    """Its job; that of its Idempotency-Key if that had one."""
    queue: str
    state: int
    """1: it is new; 0 and -1: as `HeldKey.state`; REFUSED."""
    created_at: float | None
    """Unix seconds; None if nothing was written."""
    earlier: tuple[str, ...]
    """Jobs of its conversation that have not ended: all for the policy `interrupt`, the first for
    `queue` and `reject`, none for `parallel`."""


class Remembered(NamedTuple):
    """How long the addresses of conversations are kept, and of how many."""

    ttl_s: float
    most: int
    share: float = 1.0
    """The part that one tenant has of what it has and what is free."""


class TurnPlace(NamedTuple):
    """Where a message runs."""

    conversation: str
    home: str
    """The id of the address."""


def begin_turn(
    new: NewJob, turn: ConversationTurn, ttl_s: int, key: KeyToHold | None
) -> ScriptCall[BegunTurn]:
    """Write the record of a message and its first event, as its policy allows.

    Its conversation's list of messages is kept for `ttl_s` seconds after the last one.
    """
    keys = [*new.keys, redis_keys.turns(turn.conversation)]
    held: list[Argument] = ["", new.record.queue, "", ""]
    if key is not None:
        keys += [key.name, redis_keys.IDEMPOTENCY]
        held = [key.fingerprint, new.record.queue, key.ttl_s, key.renew_s]
    args: list[Argument] = [turn.policy, ttl_s, redis_keys.record("*"), *held, *new.args]
    return ScriptCall(load("jobs/begin_turn"), keys, args, _begun)


def start_turn(
    job_id: str, queue: str, started: Started, place: TurnPlace, remembered: Remembered
) -> ScriptCall[tuple[int, Hash] | None]:
    """Do what `scripts.jobs.start` does, and remember the address of the conversation."""
    keys = [
        redis_keys.record(job_id),
        redis_keys.log(job_id),
        redis_keys.homes(queue),
        redis_keys.homes_used(queue),
    ]
    args: list[Argument] = [
        redis_keys.channel(job_id), started.attempt, started.worker, started.nonce or "",
        event_fields(started), *place, *remembered, DEFAULT_TENANT.name,
        redis_keys.homes_of(queue, "*"),
    ]  # fmt: skip
    return ScriptCall(load("jobs/start_turn"), keys, args, _started)


def report(
    queue: str, worker: str, lease_s: float, ttl_s: float, addresses: Mapping[str, bool]
) -> ScriptCall[set[str]]:
    """Note for `ttl_s` seconds which addresses a worker serves, and whether each works.

    Returns those that another worker serves, too.
    """
    each: list[Argument] = [
        part for address, works in addresses.items() for part in (address, int(works))
    ]
    args: list[Argument] = [worker, lease_s, ttl_s, *each]
    return ScriptCall(load("conversations/report"), [redis_keys.addresses(queue)], args, _texts)


def _begun(reply: Any) -> BegunTurn:
    job_id, queue, state, created_at, *earlier = reply
    at = float(created_at) if created_at else None
    return BegunTurn(
        job_id.decode(errors="replace"),
        queue.decode(errors="replace"),
        int(state),
        at,
        tuple(each.decode(errors="replace") for each in earlier),
    )


def _started(reply: Any) -> tuple[int, Hash] | None:
    return (int(reply[0]), pairs(reply[1])) if reply else None


def _texts(reply: Any) -> set[str]:
    return {each.decode(errors="replace") for each in reply}
