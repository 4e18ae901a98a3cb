"""Makes the lists of a queue anew from the facts of its jobs, and lost facts from their records.

The facts of a job have its place in the order, so each job is where it was before. What scripts had
half done when they met the damaged key is completed, too: a claim may have taken a job from the
backlog, and given nobody a lease.
"""

import json
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any, Final

from contract import redis_keys
from relay.connection import Argument, Connection, ScriptCall
from relay.leases import Leases
from relay.records import Records
from relay.scripts.loader import load
from relay.scripts.queues import queue_head, queue_keys

_PAGE: Final = 200


class QueueRebuild:
    """Rebuilds one queue at a time; twice does no harm."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._leases = Leases(connection)

    async def rebuild(self, queue: str, damaged: Collection[str]) -> list[str]:
        """Make anew what these damaged keys had; returns jobs that are in no list of the queue.

        Raises RelayUnavailable.
        """
        load_key, scheduled = redis_keys.load(queue), redis_keys.scheduled(queue)
        # What is in no list any more is counted as it is put back.
        emptied = {redis_keys.backlog(queue): load_key, redis_keys.delayed(queue): scheduled}
        if counts := [count for of, count in emptied.items() if of in damaged]:
            await self._connection.command("DEL", *counts)
        if redis_keys.facts(queue) in damaged:
            for of in (redis_keys.leases, redis_keys.delayed, redis_keys.backlog):
                async for ids in self._walk("ZSCAN", of(queue)):
                    await self._note_facts(queue, ids)
        nowhere: list[str] = []
        recounts = [key in damaged for key in (load_key, scheduled)]
        async for ids in self._walk("HSCAN", redis_keys.facts(queue)):
            lease_s = self._connection.settings.lease_s
            found = await self._connection.call(place(queue, lease_s, recounts, ids))
            nowhere += found
        return nowhere

    async def _walk(self, command: str, key: str) -> AsyncGenerator[list[str]]:
        """The ids of a key, a page at a time; some twice."""
        cursor = "0"
        while True:
            words = (command, key, cursor, "COUNT", _PAGE)
            (reply,) = await self._connection.replies([words])
            if reply is None:
                return
            at, found = reply
            ids = found if isinstance(found, dict) else [id for id, _ in found]
            yield [id.decode(errors="replace") for id in ids]
            cursor = str(int(at))
            if cursor == "0":
                return

    async def _note_facts(self, queue: str, ids: Sequence[str]) -> None:
        known: list[Argument] = []
        for id in ids:
            state = await self._records.state(id)
            facts = state and await self._leases.facts(id, state)
            if state is not None and facts:
                known += [id, json.dumps({**json.loads(facts), "attempt": state.attempt})]
        if known:
            await self._connection.call(note_facts(queue, known))


def note_facts(queue: str, known: Sequence[Argument]) -> ScriptCall[int]:
    """Give jobs their facts (id and JSON in turn), unless they have any; returns how many."""
    return ScriptCall(load("repair/note_facts"), [redis_keys.facts(queue)], known, int)


def place(
    queue: str, lease_s: float, recounts: Sequence[bool], ids: Sequence[str]
) -> ScriptCall[list[str]]:
    """Make anew what a queue has beside its facts of these jobs; returns those that are nowhere.

    `recounts`: whether its waiting jobs are counted, and its delayed ones.
    """
    args: list[Argument] = [*queue_head(queue), lease_s, *(int(each) for each in recounts)]
    keys = [*queue_keys(queue), redis_keys.behind(queue)]
    return ScriptCall(load("repair/place"), keys, [*args, *ids], _ids)


def _ids(reply: Any) -> list[str]:
    return [id.decode(errors="replace") for id in reply]
