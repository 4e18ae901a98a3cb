"""A server whose data is on a disk of a few megabytes, which a test fills and frees.

The disk is a tmpfs in a mount namespace of the server: nobody else sees it, and it is gone with the
server. A test reaches it through /proc. That takes root and `unshare`.
"""

import os
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from typing_extensions import override

from support.debian_programs import Program
from support.redis_server import RedisServer

MIB = 2**20
_ALONE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
_MOUNT = 'mount -t tmpfs -o "size=$1,mode=700" tmpfs "$2" && shift 2 && exec "$@"'


@cache
def can_mount() -> bool:
    """Whether this process may mount a disk of its own."""
    if shutil.which("unshare") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    words = [*_ALONE, "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(
    not can_mount(), reason="NOT RUN: a small disk takes root and `unshare --mount`"
)


class RedisOnASmallDisk(RedisServer):
    """A server on a disk of `size_mib`."""

    def __init__(
        self, folder: Path, *options: str, size_mib: int = 16, program: Program | None = None
    ) -> None:
        self.size_mib = size_mib
        self._mounted_at = folder / "disk"
        self._mounted_at.mkdir()
        super().__init__(folder, *options, program=program)

    @property
    def disk(self) -> Path:
        """The disk, as every process of this machine can reach it."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{self._mounted_at}")

    def fill(self) -> None:
        """Leave no byte of the disk free."""
        with (self.disk / "ballast").open("ab", buffering=0) as ballast:
            for piece in (b"x" * MIB, b"x" * 4096, b"x"):
                with suppress(OSError):
                    while ballast.write(piece):
                        pass
        assert os.statvfs(self.disk).f_bavail == 0

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.disk / "ballast").unlink()

    @override
    def _run(self) -> subprocess.Popen[bytes]:
        where = str(self._mounted_at)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [
                    *_ALONE, _MOUNT, "sh", f"{self.size_mib}m", where,
                    str(self.program.path), "--port", str(self.port),
                    "--bind", "127.0.0.1", "--save", "",
                    "--appendonly", "yes", "--appendfsync", "everysec", "--dir", where,
                    "--unixsocket", str(self.folder / "redis.sock"), *self.options,
                ],
                stdout=log,
                env=self.program.environment,
            )  # fmt: skip
