"""Removes ended jobs before their time while Redis is nearly full, those of who keeps most first.

Memory is one for all tenants: who runs many jobs, or large ones, would fill it with what has ended,
and nobody could enqueue any more (docs/adr/0064). The maintainer does it with each check, for a
bounded time. Below the mark it reads one number. Above it walks all jobs twice, a page at a time:
first a survey adds up what each tenant keeps; then jobs of the tenants that keep more than their
part are removed, the oldest first. A job costs nothing for it. Nothing is remembered in Redis: a
maintainer that dies leaves a page that is removed, or one that is not.

A tenant whose part is too large, and of which nothing may go yet, gets no new job in meanwhile, and
its waiting jobs wait (relay/room/held_tenants.py).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from contract import redis_keys
from contract.tenants import DEFAULT_TENANT
from relay.connection import Argument, Connection, ScriptCall
from relay.room.fair_shares import excess, to_free
from relay.room.orphaned_keys import OrphanedKeys
from relay.room.room_state import RoomState, write_state
from relay.scripts.jobs import NOTED_S
from relay.scripts.loader import load

_log = logging.getLogger(__name__)

_PAGE: Final = 100
"""Jobs of one script call, which takes Redis two milliseconds."""
_READ_S: Final = 60.0
"""Seconds after the last read of its log for which a job is not removed, at most as many as it is
kept in any case."""
_MOST_TOLD: Final = 10


class RoomMaker:
    """Makes room; one at a time is enough for a fleet, and two do no harm."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._keys = OrphanedKeys(connection)
        self._at = 0
        """How far the present walk has come, counted from the oldest job."""
        self._kept: Counter[str] = Counter()
        """Bytes of each tenant's jobs, as far as the survey has come."""
        self._ended: Counter[str] = Counter()
        """Those of them that ended jobs take, which go once they are old enough."""
        self._too_much: dict[str, int] = {}
        """Bytes that tenants are still to give up, while jobs are removed."""
        self._removed: Counter[str] = Counter()
        self._state: RoomState | None = None

    async def make(self, seconds: float) -> None:
        """Make room, if there is little, for about so many seconds; raises RelayUnavailable."""
        high_water = self._connection.settings.memory_high_water
        used, limit = await self._connection.memory() if high_water < 1 else (0, 0)
        if not limit or used <= high_water * limit:
            await self._rest()
            return
        await self._keys.drop(seconds / 4)
        is_done = await self._walk(seconds, used, limit)
        self._report_removed(used / limit)
        if is_done:
            self._state = self._state_of(used, limit)
        if self._state is not None:
            await write_state(self._connection, self._state)

    async def _walk(self, seconds: float, used: int, limit: int) -> bool:
        """Go on with the present walk; whether both walks have come to their end."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        is_done = False
        while not is_done and (began := now()) < until:
            ids = await self._page()
            if self._too_much:
                is_done = await self._remove(ids)
            else:
                is_done = await self._survey(ids, used, limit)
            await asyncio.sleep((now() - began) / 2)
        return is_done

    async def _rest(self) -> None:
        """Forget a walk that is no longer needed."""
        if self._state is not None:
            await write_state(self._connection, None)
        self._state = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._at, self._too_much = 0, {}
        self._kept.clear()
        self._ended.clear()

    async def _page(self) -> list[str]:
        ids = await self._connection.command(
            "ZRANGE", redis_keys.RECENT, self._at, self._at + _PAGE - 1
        )
        return [id.decode(errors="replace") for id in ids]

    async def _survey(self, ids: Sequence[str], used: int, limit: int) -> bool:
        """Add up a page; whether it was the last one, and nothing is to be removed."""
        if ids:
            for tenant, size_bytes, ended_bytes in await self._connection.call(survey(ids)):
                self._kept[tenant] += size_bytes
                self._ended[tenant] += ended_bytes
            self._at += len(ids)
            return False
        high_water = self._connection.settings.memory_high_water
        free_bytes = to_free(used, limit, high_water, self._kept.total())
        self._at, self._too_much = 0, excess(self._kept, free_bytes)
        return not self._too_much

    async def _remove(self, ids: Sequence[str]) -> bool:
        """Remove what may go of a page; whether that was enough, or the page was the last one."""
        if ids:
            settings = self._connection.settings
            before = min(
                self._connection.now() - settings.memory_keeps_s,
                await self._settled_until(),
                await self._children_seen_until(),
            )
            # Who is refused keeps nothing by reading it again and again.
            is_refusing = self._state is not None and self._state.refused
            read_s = 0 if is_refusing else min(_READ_S, settings.memory_keeps_s)
            found = await self._connection.call(remove(ids, self._too_much, before, read_s))
            for tenant, jobs, size_bytes in found:
                self._removed[tenant] += jobs
                self._kept[tenant] -= size_bytes
                self._ended[tenant] -= size_bytes
                self._too_much[tenant] -= size_bytes
            self._at += len(ids) - sum(jobs for _, jobs, _ in found)
        return not ids or all(size <= 0 for size in self._too_much.values())

    async def _settled_until(self) -> float:
        """Until when jobs had ended whose usage is in the ledger, which may need their logs."""
        oldest = await self._connection.command(
            "XRANGE", redis_keys.UNSETTLED, "-", "+", "COUNT", 1
        )
        return int(oldest[0][0].partition(b"-")[0]) / 1000 if oldest else float("inf")

    async def _children_seen_until(self) -> float:
        """Until when jobs had ended whose children have noted that they are done."""
        parents, children = await self._connection.pipeline(
            [
                ("ZRANGE", key, 0, 0, "WITHSCORES")
                for key in (redis_keys.PARENTS, redis_keys.BLOCKED)
            ]
        )
        noted = [float(at) + NOTED_S for at in children[1:] if float(at) < NOTED_S]
        return min([float("inf"), *map(float, parents[1:]), *noted])

    def _state_of(self, used: int, limit: int) -> RoomState:
        """Who keeps most, and who is refused, after both walks; the next pass begins anew."""
        high_water = self._connection.settings.memory_high_water
        before = set(self._state.refused if self._state else ())
        if used >= (high_water + 1) / 2 * limit:
            before = set(self._too_much)
        left = {name: size for name, size in self._too_much.items() if size > 0}
        # Without keys there is nobody to leave room for.
        refused = sorted((left.keys() & before) - {DEFAULT_TENANT.name})
        state = RoomState(
            mark_bytes=int(high_water * limit),
            tenants=dict(self._kept.most_common(_MOST_TOLD)),
            refused=tuple(refused),
            slowed=tuple(name for name in refused if self._ended[name] < left[name]),
        )
        self._begin_anew()
        for tenant in state.refused:
            _log.warning(
                "Redis uses %.0f %% of its maxmemory: tenant %s keeps most, no more of it may "
                "go yet: its new jobs are refused, and its waiting ones wait",
                100 * used / limit, tenant,
            )  # fmt: skip
        return state

    def _report_removed(self, share: float) -> None:
        for tenant, jobs in self._removed.items():
            self._connection.observer.on_removed_early(tenant, jobs)
            _log.warning(
                "Redis uses %.0f %% of its maxmemory: the oldest %d ended jobs of tenant %s were "
                "removed before their time", 100 * share, jobs, tenant,
            )  # fmt: skip
        self._removed.clear()


def survey(job_ids: Sequence[str]) -> ScriptCall[list[tuple[str, int, int]]]:
    """Add up the memory that these jobs take, in bytes.

    Returns tenants with that of their jobs, and that of those which have ended and no batch needs.
    """
    return ScriptCall(load("room/survey"), _keys(job_ids), [], _counts_by_tenant)


def remove(
    job_ids: Sequence[str], too_much: Mapping[str, int], ended_before: float, read_s: float
) -> ScriptCall[list[tuple[str, int, int]]]:
    """Delete jobs, in this order, until tenants have given up so many bytes.

    Those go that ended before then (unix seconds), that nobody needs, and whose log nobody has read
    for `read_s` seconds. Returns tenants with the number of their jobs that went, and their bytes.
    """
    keys = [redis_keys.RECENT, redis_keys.DEAD, *_keys(job_ids)]
    victims = {tenant: size for tenant, size in too_much.items() if size > 0}
    args: list[Argument] = [
        f"{ended_before:.6f}", read_s, redis_keys.recent("*"), len(victims),
        *(word for each in victims.items() for word in each), *job_ids,
    ]  # fmt: skip
    return ScriptCall(load("room/remove"), keys, args, _counts_by_tenant)


def _keys(job_ids: Sequence[str]) -> list[str]:
    return [key for id in job_ids for key in (redis_keys.record(id), redis_keys.log(id))]


def _counts_by_tenant(reply: Sequence[Any]) -> list[tuple[str, int, int]]:
    rows = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
    return [(tenant.decode(errors="replace"), *counts) for tenant, *counts in rows]
