"""Storage for the bytes of files: a local folder, or any file system of fsspec.

An object is written once, from beginning to end, and then only read or deleted, because object
stores allow nothing else. No object is ever whole in memory. Every call blocks, so it runs in one
of a few threads.
"""

import io
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
from fsspec.core import url_to_fs
from fsspec.spec import AbstractFileSystem

from api_shim.disk_room import Disk, demand_room_for_file, disk_of
from contract.errors import StorageUnavailable, UnknownFile

Answer = TypeVar("Answer")

PIECE_BYTES: Final = 2**20
_BLOCK_BYTES: Final = 8 * 2**20
"""Size of an upload part; an object store allows 10,000 parts an object."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*", re.ASCII)
_THREADS: Final = 8
_GIVE_UP_S: Final = 10.0


class Writing:
    """An object that is being written."""

    def __init__(
        self, opened: Any, limiter: anyio.CapacityLimiter, demand_room: Callable[[int], None]
    ) -> None:
        """Write to an open file; `demand_room` raises if so many bytes have no room."""
        self._opened = opened
        self._limiter = limiter
        self._demand_room = demand_room
        self._waiting = bytearray()
        self.size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Append bytes; raises StorageUnavailable."""
        self._waiting += data
        self.size_bytes += len(data)
        if len(self._waiting) >= PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write the buffer; raises StorageUnavailable."""
        whole, self._waiting = bytes(self._waiting), bytearray()
        if whole:
            await _in_thread(self._limiter, lambda: self._write(whole))

    def _write(self, data: bytes) -> None:
        self._demand_room(len(data))
        self._opened.write(data)

    def finish(self) -> None:
        """Write everything durably (fsync) and close."""
        self._opened.flush()
        with suppress(
            io.UnsupportedOperation, AttributeError
        ):  # only local files have a descriptor
            os.fsync(self._opened.fileno())
        self._opened.close()

    def discard(self) -> None:
        """Close an unfinished object; the sweep deletes what it leaves behind."""
        self._opened.close()


class Storage:
    """Objects by name, as in `files/file-...`; every method raises StorageUnavailable."""

    def __init__(self, url: str, reserve_bytes: int = 0) -> None:
        """Store under this folder or fsspec URL; nothing is opened or created yet.

        So many bytes are left free on a disk of this machine.
        """
        self._url = url
        self._reserve_bytes = reserve_bytes
        self._limiter = anyio.CapacityLimiter(_THREADS)

    @cached_property
    def _root(self) -> tuple[AbstractFileSystem, str]:
        # Other shims write and delete too, so a cached listing would be wrong.
        files, root = url_to_fs(self._url, use_listings_cache=False)
        if "file" in _protocols(files):
            Path(root).mkdir(mode=0o700, parents=True, exist_ok=True)
        return files, root.rstrip("/")

    async def demand_room(self, size_bytes: int) -> None:
        """Raise StorageUnavailable if an object of so many bytes has no room."""
        await self._do(lambda: self._demand_room(size_bytes))

    def _demand_room(self, size_bytes: int) -> None:
        if self._reserve_bytes and (disk := self._disk()) is not None:
            demand_room_for_file(disk, size_bytes, self._reserve_bytes)

    async def disk(self) -> Disk | None:
        """The disk of the objects; None if it is not one of this machine."""
        return await self._do(self._disk)

    def _disk(self) -> Disk | None:
        files, root = self._root
        return disk_of(root) if "file" in _protocols(files) else None

    @asynccontextmanager
    async def write(self, name: str) -> AsyncGenerator[Writing]:
        """Write an object; it exists once this context exits without an error."""
        opened = await self._do(lambda: self._open_new(name))
        writing = Writing(opened, self._limiter, self._demand_room)
        try:
            yield writing
            await writing.flush()
            await self._do(writing.finish)
        except BaseException:
            with anyio.move_on_after(_GIVE_UP_S, shield=True), suppress(StorageUnavailable):
                await self._do(writing.discard)
            raise

    def _open_new(self, name: str) -> Any:
        files, root = self._root
        path = _path(root, name)
        if "file" in _protocols(files):
            files.makedirs(files._parent(path), exist_ok=True)  # noqa: SLF001 - its own way to ask
            return files.open(path, "wb")
        return files.open(path, "wb", block_size=_BLOCK_BYTES)

    async def read(self, name: str, piece_bytes: int = PIECE_BYTES) -> AsyncGenerator[bytes, None]:
        """An object in pieces; raises UnknownFile if it does not exist."""
        opened = await self._do(lambda: self._open(name))
        try:
            while piece := await self._do(lambda: opened.read(piece_bytes)):
                yield piece
        finally:
            with anyio.move_on_after(_GIVE_UP_S, shield=True), suppress(StorageUnavailable):
                await self._do(opened.close)

    def _open(self, name: str) -> Any:
        files, root = self._root
        try:
            return files.open(_path(root, name), "rb")
        except FileNotFoundError:
            raise UnknownFile(f"the file storage has no {name}") from None

    async def delete(self, name: str) -> None:
        """Delete an object, or all objects whose names begin with this one and a slash."""
        await self._do(lambda: self._delete(name))

    def _delete(self, name: str) -> None:
        files, root = self._root
        with suppress(FileNotFoundError):
            files.rm(_path(root, name), recursive=True)

    async def _do(self, work: Callable[[], Answer]) -> Answer:
        return await _in_thread(self._limiter, work)


async def _in_thread(limiter: anyio.CapacityLimiter, work: Callable[[], Answer]) -> Answer:
    with storage_errors():
        return await anyio.to_thread.run_sync(work, limiter=limiter)


def _path(root: str, name: str) -> str:
    """Where an object is; raises UnknownFile for a name that could lead out of the storage.

    Names come from Redis, where another program may have put `..` or nothing at all.
    """
    if not _NAME.fullmatch(name):
        raise UnknownFile(f"the file storage has no {name[:80]!r}")
    return f"{root}/{name}"


def _protocols(files: AbstractFileSystem) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


@contextmanager
def storage_errors() -> Generator[None]:
    """Raise errors of file systems and object stores as StorageUnavailable."""
    try:
        yield
    except ImportError as error:
        raise StorageUnavailable(
            f"FLEET_FILES_URL names a storage whose library is not installed ({error}): "
            "pip install 'llm-fleet[s3]' for s3://, or what fsspec requires for another URL"
        ) from error
    except _failures() as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise StorageUnavailable(
            f"the file storage failed ({reason}): check FLEET_FILES_URL, its permissions and "
            "its free space"
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """Errors to convert: of the standard library, and of botocore if fsspec has loaded it."""
    clouds = sys.modules.get("botocore.exceptions")
    return (OSError, ValueError, *((clouds.BotoCoreError, clouds.ClientError) if clouds else ()))
