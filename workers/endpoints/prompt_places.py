"""Where the prompts of conversations are kept: the id of an address, and the slots of a server.

llama-server keeps the prompt of the last request in each slot, and a request with `id_slot` waits
for that slot. So a slot is named only while it is certain that nobody else uses it and that it
holds the conversation's prompt: while all jobs at the server are messages of no more conversations
than it has slots, all sent by this worker. A job that runs without a named slot may overwrite any
of them. Once one has run, the server chooses (by the longest common prefix, and from its own cache
of prompts), until the jobs of `QUIET_S` seconds fit again. No I/O.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

QUIET_S: Final = 600.0
"""Seconds after which a conversation, or a job without one, no longer counts."""


_OWN_NAMES: Final = frozenset({"localhost", "host.docker.internal", "host.containers.internal"})
"""Names of the machine that a worker runs on."""
_ID_BYTES: Final = 8


def home_of(address: str, host: str, worker: str) -> str:
    """The id of an address, the same in all workers that reach the same server by it.

    `host` is this machine's name, because 127.0.0.1 is another server on each; a backend in the
    process of `worker` has no address.
    """
    name = urlsplit(address).hostname if "://" in address else None
    where = f"{host} {address}" if name is not None and _is_own(name) else address
    text = worker if name is None else where
    return hashlib.blake2b(text.encode(), digest_size=_ID_BYTES).hexdigest()


def _is_own(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name in _OWN_NAMES


class PromptSlots:
    """The slots of one server."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is in seconds; no slot is known yet."""
        self.count = 0
        """How many the server has; 0 until it has told, or if its slots have no names."""
        self.is_shared = False
        """Whether another worker sends jobs to the server, too."""
        self._clock = clock
        self._slot_of: dict[str, int] = {}
        self._used: OrderedDict[str, float] = OrderedDict()
        """When each conversation ran last; the longest ago first."""
        self._unnamed = 0
        """Jobs that run without a named slot."""
        self._unnamed_at: float | None = None
        """When one ran last."""
        self._busy: set[int] = set()

    def take(self, conversation: str | None) -> int | None:
        """The slot that a job is to name until `free`; None: it is to name none."""
        now = self._clock()
        self._forget(now)
        slot = None if conversation is None else self._slot(conversation)
        if slot is None:
            self._unnamed += 1
            self._unnamed_at = now
            self._slot_of.clear()
        else:
            self._busy.add(slot)
        if conversation is not None:
            self._used[conversation] = now
            self._used.move_to_end(conversation)
            while len(self._used) > self.count + 1:
                self._used.popitem(last=False)
        return slot

    def free(self, slot: int | None) -> None:
        """A job that `take` was called for has ended."""
        if slot is None:
            self._unnamed -= 1
            self._unnamed_at = self._clock()
        else:
            self._busy.discard(slot)

    def _forget(self, now: float) -> None:
        while self._used and next(iter(self._used.values())) < now - QUIET_S:
            conversation, _ = self._used.popitem(last=False)
            self._slot_of.pop(conversation, None)
        is_over = self._unnamed_at is not None and self._unnamed_at < now - QUIET_S
        if is_over and not self._unnamed:
            self._unnamed_at = None

    def _slot(self, conversation: str) -> int | None:
        others = len(self._used.keys() - {conversation})
        if self.is_shared or self._unnamed_at is not None or others >= self.count:
            return None
        known = self._slot_of.get(conversation)
        if known is not None:
            return None if known in self._busy else known
        taken = {*self._slot_of.values(), *self._busy}
        free = next((slot for slot in range(self.count) if slot not in taken), None)
        if free is not None:
            self._slot_of[conversation] = free
        return free
