"""How full the limits of the fleet are: those at which it refuses jobs and files."""

from collections.abc import Iterator
from typing import Final

from contract.roster import FleetLimit, QueueView
from relay.connection import Connection
from relay.files import FileBounds, Files, StoredBytes
from relay.position import Positions
from relay.room.room_state import RoomState, read_state
from relay.roster import Roster

_MOST: Final = 10
"""Queues, and tenants, that are told: the fullest."""


class LimitReader:
    """Reads how full the limits are that Redis knows of."""

    def __init__(self, connection: Connection, files: Files, bounds: FileBounds) -> None:
        """Use this connection."""
        self._connection = connection
        self._positions = Positions(connection)
        self._files = files
        self._bounds = bounds

    async def read(self, roster: Roster) -> tuple[FleetLimit, ...]:
        """The limits now; raises RelayUnavailable."""
        used, most = await self._connection.memory()
        views = await self._positions.views(roster.workers)
        stored = await self._files.stored_bytes()
        room = await read_state(self._connection)
        memory = FleetLimit(
            what="memory of Redis", held=used, limit=most, unit="bytes",
            setting="FLEET_REDIS_MEMORY_BYTES, or maxmemory of a server of your own",
        )  # fmt: skip
        queues = _fullest([limit for view in views for limit in self._of_queue(view)])
        shares = [] if room is None else self._of_jobs(room)
        return (*([memory] if most else []), *shares, *self._of_files(stored), *queues)

    def _of_jobs(self, room: RoomState) -> list[FleetLimit]:
        return [
            FleetLimit(
                what=f"jobs of tenant {tenant}" + " (refused)" * (tenant in room.refused),
                held=held, limit=room.mark_bytes, unit="bytes", setting="FLEET_MEMORY_HIGH_WATER",
            )
            for tenant, held in room.tenants.items()
        ]  # fmt: skip

    def _of_queue(self, view: QueueView) -> Iterator[FleetLimit]:
        settings = self._connection.settings
        if view.depth:
            yield FleetLimit(
                what=f"jobs in queue {view.name}", held=view.depth, limit=settings.queue_limit,
                unit="jobs", setting="FLEET_QUEUE_LIMIT",
            )  # fmt: skip
            yield FleetLimit(
                what=f"tokens in queue {view.name}", held=view.tokens, unit="tokens",
                limit=settings.queue_limit_tokens, setting="FLEET_QUEUE_LIMIT_TOKENS",
            )  # fmt: skip

        if view.kept_bytes:
            yield FleetLimit(
                what=f"requests in queue {view.name}", held=view.kept_bytes, unit="bytes",
                limit=settings.queue_limit_bytes, setting="FLEET_QUEUE_LIMIT_BYTES",
            )  # fmt: skip

    def _of_files(self, stored: StoredBytes) -> Iterator[FleetLimit]:
        yield FleetLimit(
            what="files", held=stored.all_bytes, limit=self._bounds.all_bytes, unit="bytes",
            setting="FLEET_FILES_BYTES",
        )  # fmt: skip
        yield from _fullest(
            [
                FleetLimit(
                    what=f"files of tenant {tenant}", held=held, unit="bytes",
                    limit=self._bounds.tenant_bytes, setting="FLEET_TENANT_FILES_BYTES",
                )
                for tenant, held in stored.by_tenant.items()
            ]
        )  # fmt: skip
        yield from _fullest(
            [
                FleetLimit(
                    what=f"number of files of tenant {tenant}", held=held, unit="files",
                    limit=self._bounds.tenant_files, setting="FLEET_TENANT_FILES",
                )
                for tenant, held in stored.files_by_tenant.items()
            ]
        )  # fmt: skip


def _fullest(limits: list[FleetLimit]) -> list[FleetLimit]:
    return sorted(limits, key=lambda each: -each.held / each.limit)[:_MOST]
