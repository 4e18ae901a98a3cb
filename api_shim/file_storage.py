"""Where the bytes of files lie: any place that fsspec knows, a local folder if nobody says else.

An object is written once, from its beginning to its end, and then only read or deleted: that is all
that object stores can do, so it is all that is asked of a folder, too. Nothing is ever whole in
memory. Every call blocks, so it runs in one of a few threads.
"""

import io
import os
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

from contract.errors import StorageUnavailable, UnknownFile

Answer = TypeVar("Answer")

PIECE_BYTES: Final = 2**20
_BLOCK_BYTES: Final = 8 * 2**20
"""What an object store is sent at once; it may have 10,000 of them in an object."""
_THREADS: Final = 8
_GIVE_UP_S: Final = 10.0


class Writing:
    """An object that is being written."""

    def __init__(self, opened: Any, limiter: anyio.CapacityLimiter) -> None:
        """Write to an open file."""
        self._opened = opened
        self._limiter = limiter
        self._waiting = bytearray()
        self.size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Add these bytes; raises StorageUnavailable."""
        self._waiting += data
        self.size_bytes += len(data)
        if len(self._waiting) >= PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Hand over what waits; raises StorageUnavailable."""
        whole, self._waiting = bytes(self._waiting), bytearray()
        if whole:
            await _in_thread(self._limiter, lambda: self._opened.write(whole))

    def finish(self) -> None:
        """Bring everything to where it survives a power cut."""
        self._opened.flush()
        with suppress(io.UnsupportedOperation, AttributeError):  # only files have a number
            os.fsync(self._opened.fileno())
        self._opened.close()

    def discard(self) -> None:
        """Give up; what an unfinished object leaves behind is deleted by its name."""
        self._opened.close()


class Storage:
    """Objects by name, as in `files/file-...`; raises StorageUnavailable everywhere."""

    def __init__(self, url: str) -> None:
        """Store under this folder or fsspec URL; nothing is opened or made yet."""
        self._url = url
        self._limiter = anyio.CapacityLimiter(_THREADS)

    @cached_property
    def _root(self) -> tuple[AbstractFileSystem, str]:
        # Other shims write and delete, too: a list that is remembered would be wrong.
        files, root = url_to_fs(self._url, use_listings_cache=False)
        if "file" in _protocols(files):
            Path(root).mkdir(mode=0o700, parents=True, exist_ok=True)
        return files, root.rstrip("/")

    @asynccontextmanager
    async def write(self, name: str) -> AsyncGenerator[Writing]:
        """Write an object, which is there when this ends well."""
        opened = await self._do(lambda: self._open_new(name))
        writing = Writing(opened, self._limiter)
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
        path = f"{root}/{name}"
        if "file" in _protocols(files):
            files.makedirs(files._parent(path), exist_ok=True)  # noqa: SLF001 - its own way to ask
            return files.open(path, "wb")
        return files.open(path, "wb", block_size=_BLOCK_BYTES)

    async def read(self, name: str, piece_bytes: int = PIECE_BYTES) -> AsyncGenerator[bytes, None]:
        """An object, a piece at a time; raises UnknownFile if it is not there."""
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
            return files.open(f"{root}/{name}", "rb")
        except FileNotFoundError:
            raise UnknownFile(f"the storage of files does not have {name}") from None

    async def delete(self, name: str) -> None:
        """Delete an object, or everything whose name begins with this one and a slash."""
        await self._do(lambda: self._delete(name))

    def _delete(self, name: str) -> None:
        files, root = self._root
        with suppress(FileNotFoundError):
            files.rm(f"{root}/{name}", recursive=True)

    async def _do(self, work: Callable[[], Answer]) -> Answer:
        return await _in_thread(self._limiter, work)


async def _in_thread(limiter: anyio.CapacityLimiter, work: Callable[[], Answer]) -> Answer:
    with storage_errors():
        return await anyio.to_thread.run_sync(work, limiter=limiter)


def _protocols(files: AbstractFileSystem) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


@contextmanager
def storage_errors() -> Generator[None]:
    """Turn errors of file systems and object stores into StorageUnavailable."""
    try:
        yield
    except ImportError as error:
        raise StorageUnavailable(
            f"FLEET_FILES_URL names a storage whose library is not installed ({error}): "
            "pip install 'llm-fleet[s3]' for s3://, and what fsspec asks for with another one"
        ) from error
    except _failures() as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise StorageUnavailable(
            f"the storage of files does not work ({reason}): look at FLEET_FILES_URL, its rights "
            "and its free space"
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What may be raised; of a library that fsspec has loaded, also what fsspec lets through."""
    clouds = sys.modules.get("botocore.exceptions")
    return (OSError, ValueError, *((clouds.BotoCoreError, clouds.ClientError) if clouds else ()))
