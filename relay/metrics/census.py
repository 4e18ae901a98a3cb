"""The state of the whole fleet at a moment, read in a number of commands that no backlog changes.

There are some commands for each queue that held a job in the last day or is served now, in eight
round trips, whatever number of jobs wait.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from contract import redis_keys
from contract.roster import QueueView, WorkerReport
from relay.connection import Connection
from relay.position import Positions
from relay.roster import RosterStore
from relay.scaling.demand import Demand, DemandReader


class FleetCensus(NamedTuple):
    """What Redis says of the fleet."""

    workers: Sequence[WorkerReport]
    queues: Sequence[QueueView]
    wanted: Demand
    """The workers that these queues want."""
    live_jobs: int
    dead_letters: int
    unreadable_messages: int
    batches: int
    memory_bytes: int
    memory_limit_bytes: int
    """0: none."""


class Census:
    """Reads the fleet's state."""

    def __init__(self, connection: Connection) -> None:
        """Read through this connection."""
        self._connection = connection
        self._roster = RosterStore(connection)
        self._positions = Positions(connection)
        self._demand = DemandReader(connection)

    async def read(self) -> FleetCensus:
        """The state now; raises RelayUnavailable."""
        roster = await self._roster.read()
        workers = roster.workers
        queues = await self._positions.with_schedules(await self._positions.views(workers))
        wanted = await self._demand.read([queue.name for queue in queues], roster)
        live, dead, unreadable, batches, memory = await self._connection.replies(
            [
                ("ZCARD", redis_keys.LIVE),
                ("ZCARD", redis_keys.DEAD),
                ("XLEN", redis_keys.UNREADABLE),
                ("ZCARD", redis_keys.BATCHES),
                ("INFO", "memory"),
            ]
        )
        return FleetCensus(
            workers, queues, wanted, live or 0, dead or 0, unreadable or 0, batches or 0,
            _bytes(memory, "used_memory"), _bytes(memory, "maxmemory"),
        )  # fmt: skip


def _bytes(memory: Any, name: str) -> int:
    # An administrator may have taken INFO from this user: then the reply names no memory.
    return int(memory.get(name, 0)) if isinstance(memory, dict) else 0
