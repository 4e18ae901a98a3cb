"""What the maintainer says of a Redis that fills up: who keeps most, and who gets nothing new in.

It stands in one key for a few intervals. Shims read it with each look whether the fleet has a
maintainer, workers with each look at their queues; they refuse, and hold back, by what they last
read: a job costs nothing for it.
"""

import logging
from typing import Final

from pydantic import ValidationError

from contract import redis_keys
from contract.errors import QueueFull
from contract.tenants import DEFAULT_TENANT
from contract.wire import WireModel
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_INTERVALS: Final = 5
"""Times `FLEET_REAP_S` for which it holds: a maintainer that dies refuses nobody for long."""
_RETRY_AFTER_S: Final = 10.0
_SHARE: Final = 1 / 4
"""Of what is free, for a tenant between two looks; a fleet has several shims."""
_JOB_BYTES: Final = 4096
"""That a job with a small request takes."""


class RoomState(WireModel):
    """How Redis's memory is shared while it is nearly full."""

    mark_bytes: int
    """Above which ended jobs are removed before their time."""
    tenants: dict[str, int]
    """Bytes that the jobs of a tenant take, of those that keep most."""
    refused: tuple[str, ...] = ()
    """Tenants that get no new job in, and whose waiting jobs wait: they keep most, and none of it
    may go yet."""
    slowed: tuple[str, ...] = ()
    """Those of them that do not get small enough by waiting: of these a job runs now and then."""


async def write_state(connection: Connection, state: RoomState | None) -> None:
    """Say it for a few intervals; None: there is room again. Raises RelayUnavailable."""
    if state is None:
        await connection.command("DEL", redis_keys.ROOM)
        return
    ttl_ms = int(_INTERVALS * connection.settings.reap_s * 1000)
    await connection.call(tell(state, ttl_ms))


async def read_state(connection: Connection) -> RoomState | None:
    """What was last said; None: there is room. Raises RelayUnavailable."""
    (said,) = await connection.replies([("GET", redis_keys.ROOM)])
    if said is None:
        return None
    try:
        return RoomState.model_validate_json(said)
    except ValidationError as error:
        _repeated.warn("%s cannot be read: %s", redis_keys.ROOM, error)
        return None


async def look(connection: Connection) -> None:
    """Have this process refuse and hold back whom the maintainer says; raises RelayUnavailable."""
    state = await read_state(connection)
    connection.crowding = frozenset(state.refused if state else ())
    connection.slowed = frozenset(state.slowed if state else ())


def tell(state: RoomState, ttl_ms: int) -> ScriptCall[bool]:
    """Say it for so many milliseconds."""
    args: list[Argument] = [state.model_dump_json(), ttl_ms]
    return ScriptCall(load("room/tell"), [redis_keys.ROOM], args, bool)


def no_room(tenant: str) -> QueueFull:
    """The error for a new job of a tenant that is refused."""
    return QueueFull(
        f"the jobs of tenant {tenant} take more of Redis's memory than those of others, and it is "
        "nearly full: try again when its last jobs have ended some minutes ago",
        retry_after_s=_RETRY_AFTER_S,
        scope="tenant",
    )


def take_room(connection: Connection, tenant: str, size_bytes: int) -> None:
    """Count a new job's bytes; raises QueueFull if its tenant takes too much between two looks.

    Who fills Redis within seconds would be refused only when it is full, and others with them.
    """
    free, taken = connection.free_bytes, connection.taken_bytes
    # A full Redis refuses by itself, and says why.
    if not free or tenant == DEFAULT_TENANT.name:
        return
    size = max(size_bytes, _JOB_BYTES)
    others = taken.total() - taken[tenant]
    most = (free - others) * (_SHARE if taken[tenant] else 2 * _SHARE)
    if taken[tenant] + size > most:
        every_s = connection.settings.reap_s
        raise QueueFull(
            f"Redis has {free / 2**20:.1f} MiB of memory left, of which the jobs of tenant "
            f"{tenant} may take a quarter in {every_s:g} seconds: try again then, or send less "
            "at once",
            retry_after_s=max(1.0, every_s),
            scope="tenant",
        )
    taken[tenant] += size
