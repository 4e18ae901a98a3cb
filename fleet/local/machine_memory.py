"""How much memory this process may use, and which part of it the embedded Redis gets.

A container or a service has less than its machine: the limits are those of its control groups
(https://docs.kernel.org/admin-guide/cgroup-v2.html, `memory.max`; `memory.limit_in_bytes` in v1).
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

_SHARE: Final = 4
"""Redis gets a quarter: models run on the same machine."""
_LEAST_BYTES: Final = 64 * 2**20
_NO_LIMIT_BYTES: Final = 2**60
"""Control groups of version 1 write a number beyond this for no limit."""


def redis_memory_bytes(root: Path = Path("/")) -> int:
    """The `maxmemory` of the embedded Redis, if no setting says it; 0, none, if it is not known."""
    found = memory_bytes(root)
    return 0 if found is None else max(_LEAST_BYTES, found // _SHARE)


def memory_bytes(root: Path = Path("/")) -> int | None:
    """The memory of this machine, or of the container; None if the system does not say.

    `root` is the file system that is read.
    """
    known = list(_of_groups(root))
    with suppress(ValueError, OSError, AttributeError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(known, default=None)


def _of_groups(root: Path) -> Iterator[int]:
    """The limits of this process's control group and of those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        within = PurePosixPath(path.lstrip("/"))
        for group in (within, *within.parents):
            with suppress(OSError, ValueError):  # `max` is no number
                limit = int((top / group / name).read_text(encoding="ascii"))
                if limit < _NO_LIMIT_BYTES:
                    yield limit
