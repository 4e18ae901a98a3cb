"""The types of the shared keys that are set aside if they are of another one, and what is lost.

A key never changes its type from version to version: what is stored in another way has another
name, or processes of two versions would set aside each other's keys. Not here: keys of one job, one
file or one batch, which harm nobody else; and tables that nothing else tells, as API keys, which
an operator looks at (docs/operating.md).
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from contract import redis_keys

QUEUE: Final[Mapping[Callable[[str], str], str]] = {
    redis_keys.backlog: "zset",
    redis_keys.urgent: "zset",
    redis_keys.delayed: "zset",
    redis_keys.facts: "hash",
    redis_keys.leases: "zset",
    redis_keys.holders: "hash",
    redis_keys.clocks: "hash",
    redis_keys.load: "hash",
    redis_keys.lines: "zset",
    redis_keys.arrivals: "zset",
    redis_keys.idle: "zset",
    redis_keys.paused: "string",
    redis_keys.scheduled: "hash",
    redis_keys.schedule: "string",
    redis_keys.homes: "hash",
    redis_keys.homes_used: "zset",
    redis_keys.behind: "zset",
    redis_keys.addresses: "hash",
}
"""Those of a queue; its list of tickets has its own name."""

SHARED: Final[Mapping[str, str]] = {
    redis_keys.QUEUES: "zset",
    redis_keys.LIVE: "zset",
    redis_keys.DEADLINES: "zset",
    redis_keys.RECENT: "zset",
    redis_keys.FOLLOWED: "zset",
    redis_keys.BLOCKED: "zset",
    redis_keys.PARENTS: "zset",
    redis_keys.DEAD: "zset",
    redis_keys.MOVABLE: "zset",
    redis_keys.RESERVING: "zset",
    redis_keys.IDEMPOTENCY: "zset",
    redis_keys.UNCOMPACTED: "zset",
    redis_keys.COMPACTED: "string",
    redis_keys.UNSETTLED: "stream",
    redis_keys.OUTBOX: "stream",
    redis_keys.UNREADABLE: "stream",
    redis_keys.UNREADABLE_COUNTS: "hash",
    redis_keys.ROSTER: "zset",
    redis_keys.KNOWN: "zset",
    redis_keys.ROOM: "string",
    redis_keys.METRICS: "hash",
    redis_keys.MAINTAINER: "string",
    redis_keys.DELIVERER: "string",
    redis_keys.SUSPECTS: "set",
    redis_keys.DAMAGED: "hash",
}
"""Those that have one name."""

LEFT: Final[Mapping[str, str]] = {
    redis_keys.KEYS: "hash",
    redis_keys.ALIASES: "hash",
    redis_keys.WEBHOOKS: "hash",
    redis_keys.WEBHOOKS_DUE: "zset",
    redis_keys.WEBHOOKS_WAITING: "hash",
    redis_keys.BATCHES: "zset",
    redis_keys.STORED: "zset",
    redis_keys.FILE_SIZES: "hash",
    redis_keys.FILE_BYTES: "hash",
    redis_keys.HELD: "zset",
    redis_keys.AUDIT: "zset",
    redis_keys.DELETIONS: "zset",
}
"""Those that nothing else tells: left to an operator, to whom `fleet doctor` names them."""

TENANT: Final[Mapping[Callable[[str], str], str]] = {
    redis_keys.recent: "zset",
    redis_keys.spending: "hash",
    redis_keys.reserved: "hash",
}

_NAMES: Final[Mapping[str, str]] = {
    **{make("*"): kind for make, kind in (*QUEUE.items(), *TENANT.items())},
    redis_keys.line("*", "*"): "zset",
    redis_keys.homes_of("*", "*"): "list",
}
_PATTERNS: Final = [
    (name, re.compile(re.escape(name).replace(r"\*", "(.+)"), re.DOTALL)) for name in _NAMES
]
_TICKETS: Final = re.compile(redis_keys.QUEUE_NAME)
_BEFORE, _, _AFTER = redis_keys.backlog("*").partition("*")
_OF_A_QUEUE: Final = re.compile(rf"{_BEFORE}([^:]+):")
_LOST: Final[Mapping[str, str]] = {
    redis_keys.UNSETTLED: "what jobs have used since the last pass is in no ledger",
    redis_keys.OUTBOX: "ends of jobs that no webhook has been told of stay untold",
    redis_keys.MOVABLE: "jobs with an alias that wait now move to no other target",
    redis_keys.METRICS: "the counters of the fleet begin at 0",
    redis_keys.KNOWN: "backends are known again once a worker of theirs has reported",
    redis_keys.UNREADABLE: "messages that nobody could read are no longer listed",
    redis_keys.spending("*"): "limits of tokens and money count what the tenant used from 0",
    redis_keys.reserved("*"): "limits of tokens and money count no running job of the tenant",
    redis_keys.schedule(
        "*"
    ): "its run windows are gone, and a paused queue stays paused: resume it",
}


def family(key: str) -> str:
    """A key's name with `*` for what it is of; empty: it is none of these."""
    if key in SHARED:
        return key
    if _TICKETS.match(key):
        return "*"
    return next((name for name, pattern in _PATTERNS if pattern.fullmatch(key)), "")


def type_of(key: str) -> str | None:
    """The type that a shared key must have; None: it is not set aside."""
    name = family(key)
    if name == "*":
        return "list"
    return SHARED.get(name) or _NAMES.get(name)


def queue_of(key: str) -> str | None:
    """The queue that a key belongs to."""
    if _TICKETS.match(key):
        return key
    found = _OF_A_QUEUE.match(key)
    return found[1] if found else None


def lost_with(key: str) -> str:
    """What is gone with a key, for the log."""
    return _LOST.get(family(key), "it is made anew from the records of jobs, or as it is used")
