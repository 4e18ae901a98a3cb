"""Room on disks of this machine: what is free, and the reserve that is left to Redis.

A full disk stops Redis (docs/adr/0058): it can be read then, and no job can be added, ended or
cancelled. So files stop before the reserve, and new jobs at half of it, which leaves the other half
to the events of jobs that run, to cancels and to deletions.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from contract.errors import RelayFull, StorageUnavailable
from contract.roster import FleetLimit
from relay.files import mib

_LARGEST_SHARE: Final = 10
"""The reserve is at most this part of a disk: a tenth."""
_LOOK_S: Final = 1.0
_RETRY_AFTER_S: Final = 30.0


class Disk(NamedTuple):
    """The disk of a folder."""

    total_bytes: int
    free_bytes: int
    """For this process: some systems keep a part for root."""

    def reserve_bytes(self, wanted_bytes: int) -> int:
        """The reserve on this disk, where so much is wanted."""
        return min(wanted_bytes, self.total_bytes // _LARGEST_SHARE)

    def room_bytes(self, wanted_bytes: int) -> int:
        """What is free beside the reserve."""
        return max(0, self.free_bytes - self.reserve_bytes(wanted_bytes))

    def used(self, what: str, wanted_bytes: int) -> FleetLimit:
        """How full it is, up to its reserve."""
        return FleetLimit(
            what=what,
            held=self.total_bytes - self.free_bytes,
            limit=max(1, self.total_bytes - self.reserve_bytes(wanted_bytes)),
            unit="bytes",
            setting="a larger disk, or a smaller FLEET_DISK_RESERVE_BYTES",
        )


def disk_of(folder: str | Path) -> Disk:
    """The disk of an existing folder; raises OSError."""
    found = os.statvfs(folder)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def demand_room_for_file(disk: Disk, size_bytes: int, reserve_bytes: int) -> None:
    """Raise StorageUnavailable if so many more bytes would need the reserve."""
    kept = disk.reserve_bytes(reserve_bytes)
    if kept and disk.free_bytes - size_bytes < kept:
        raise StorageUnavailable(
            f"the disk of the file storage has {mib(disk.free_bytes)} free and keeps {mib(kept)} of"
            " it for Redis and its jobs (FLEET_DISK_RESERVE_BYTES): delete files, or make room",
            retry_after_s=_RETRY_AFTER_S,
        )


class RedisDisk:
    """The disk on which Redis writes, if it is known and one of this machine."""

    def __init__(self, folder: Path | None, reserve_bytes: int) -> None:
        """Look when first asked; never, if there is no folder."""
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._looked_at = float("-inf")
        self._refusal: str | None = None

    def demand_room(self) -> None:
        """Raise RelayFull if new jobs would take room that others need to end.

        Looks once a second; a disk that cannot be looked at refuses nothing.
        """
        if self._folder is None or not self._reserve_bytes:
            return
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._refusal = self._look(self._folder)
        if self._refusal is not None:
            raise RelayFull(self._refusal, retry_after_s=_RETRY_AFTER_S)

    def disk(self) -> Disk | None:
        """The disk; None if it is not known."""
        with suppress(OSError):
            return None if self._folder is None else disk_of(self._folder)
        return None

    def _look(self, folder: Path) -> str | None:
        """Why new jobs are refused now."""
        try:
            disk = disk_of(folder)
        except OSError:
            return None
        kept = disk.reserve_bytes(self._reserve_bytes) // 2
        if disk.free_bytes >= kept:
            return None
        return (
            f"the disk of Redis has {mib(disk.free_bytes)} free, and {mib(kept)} are kept for jobs"
            " that it has (half of FLEET_DISK_RESERVE_BYTES): free space; new jobs are taken again"
            " by themselves"
        )
