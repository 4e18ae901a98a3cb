"""Stores the vectors of an unfinished run in a file beside its output, so that it can continue.

The file is a list of records, each with length and checksum: an incomplete record at its end, left
by a killed process or a power failure, is detected and cut off.

Invariant: the records read back are complete, of one run, and in the order of the rows.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, ConfigDict

from contract.errors import InvalidRequest

Rows = np.ndarray[tuple[int, int], np.dtype[np.float32]]

_HEAD: Final = struct.Struct("<4sIII")
"""Magic, bytes of JSON, bytes of numbers, checksum of both."""
_MAGIC: Final = b"flv1"
_SYNC_BYTES: Final = 64 * 2**20
"""Bytes after which the file is synced: at most these are lost in a power failure."""


class Facts(BaseModel):
    """The input and options of a run; only a run with the same ones can continue it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    """SHA-256 of the input."""
    column: str | None
    delimiter: str | None = None
    model: str
    backend: str | None
    dimensions: int | None
    task: str | None = None
    run: str = ""
    """A random id: the first part of the Idempotency-Keys of its jobs."""


class Bad(NamedTuple):
    """A row without a vector."""

    row: int
    """Index in the input, from 0."""
    code: str
    message: str


@dataclass(frozen=True)
class Block:
    """`count` consecutive rows; `rows` is (count, dimension), NaN for a row without a vector.

    The dimension is 0 if no row has a vector.
    """

    count: int
    rows: Rows
    bad: list[Bad] = field(default_factory=list)


class _Meta(BaseModel):
    count: int
    dimension: int
    bad: list[Bad]


class OtherRun(InvalidRequest):
    """The spool beside the output belongs to a run with other input or options."""

    code = "other_run"


def path_for(out: Path) -> Path:
    """Path of the spool of an output file."""
    return out.with_name(f".{out.name}.part")


def facts_of(out: Path) -> Facts | None:
    """Facts of the interrupted run that was to write this output.

    None if there is none, or if its spool has no vectors yet.
    """
    try:
        with path_for(out).open("rb") as file:
            facts = _record(file)
            while facts and (row := _record(file)):
                if _Meta.model_validate_json(row[0]).dimension:
                    return Facts.model_validate_json(facts[0])
    except FileNotFoundError:
        return None
    return None


@contextmanager
def spool(out: Path, facts: Facts, *, restart: bool = False) -> Iterator["Spool"]:
    """Open the spool of an output, with the rows of an earlier run unless `restart`.

    The file stays when the context ends; call `Spool.delete` once the output is written. Raises
    OtherRun, and InvalidRequest if another process uses it or it cannot be written.
    """
    path = path_for(out)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InvalidRequest(f"cannot write to {path.parent}: {error.strerror}") from error
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest(f"another `fleet embed` is writing {out}: wait for it") from None
        yield Spool(path, file, facts, restart=restart)


class Spool:
    """An open spool with `rows` rows, `bad` of them without a vector."""

    def __init__(self, path: Path, file: BinaryIO, facts: Facts, *, restart: bool) -> None:
        """Read the rows that it has; raises OtherRun."""
        self.path = path
        self._file = file
        self.rows = self.bad = self.dimension = self._unsynced = 0
        left = None if restart else _record(file)
        if left is None:
            self._begin(facts)
            return
        self.facts = Facts.model_validate_json(left[0])
        self._count()
        difference = self._difference(facts)
        if difference and not self.dimension:
            self.rows = self.bad = 0
            self._begin(facts)
        elif difference:
            raise OtherRun(
                f"{self.path} is of an interrupted run with other options ({difference}): finish "
                "that one, or discard it with --restart"
            )

    def _begin(self, facts: Facts) -> None:
        self.facts = facts.model_copy(update={"run": uuid4().hex})
        self._file.seek(0)
        self._file.truncate()
        self._add(self.facts.model_dump_json().encode(), b"")

    def _difference(self, facts: Facts) -> str | None:
        for name in ("digest", "column", "delimiter", "model", "backend", "dimensions", "task"):
            mine, theirs = getattr(facts, name), getattr(self.facts, name)
            if mine != theirs:
                return "the input is another one" if name == "digest" else f"{name}: {theirs}"
        return None

    def _count(self) -> None:
        end = self._file.tell()
        while found := _record(self._file):
            meta, end = _Meta.model_validate_json(found[0]), self._file.tell()
            self.rows += meta.count
            self.bad += len(meta.bad)
            self.dimension = meta.dimension or self.dimension
        self._file.seek(end)
        self._file.truncate()

    def add(self, block: Block) -> None:
        """Keep the next rows; raises OtherRun if they are of another width than those before."""
        width = block.rows.shape[1]
        if width and self.dimension not in {0, width}:
            raise OtherRun(
                f"the model returned vectors of length {width}, and {self.path} has vectors of "
                f"length {self.dimension}: the model has changed; start again with --restart"
            )
        meta = _Meta(count=block.count, dimension=width, bad=block.bad)
        self._add(meta.model_dump_json().encode(), block.rows.astype("<f4").tobytes())
        self.rows += block.count
        self.bad += len(block.bad)
        self.dimension = width or self.dimension

    def _add(self, meta: bytes, data: bytes) -> None:
        checksum = zlib.crc32(data, zlib.crc32(meta))
        self._file.write(_HEAD.pack(_MAGIC, len(meta), len(data), checksum) + meta + data)
        self._file.flush()
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_BYTES:
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def blocks(self) -> Iterator[Block]:
        """Yield all rows from the first; those without a vector are NaN in every column."""
        self._file.seek(0)
        _record(self._file)
        while found := _record(self._file):
            meta = _Meta.model_validate_json(found[0])
            rows = np.frombuffer(found[1], dtype="<f4").reshape(meta.count, -1)
            if not meta.dimension:
                rows = np.full((meta.count, self.dimension), np.nan, np.float32)
            yield Block(meta.count, rows.astype(np.float32, copy=False), meta.bad)

    def delete(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def _record(file: BinaryIO) -> tuple[bytes, bytes] | None:
    """The next record; None at the end, or if it is incomplete."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    magic, meta_bytes, data_bytes, checksum = _HEAD.unpack(head)
    if magic != _MAGIC:
        return None
    meta, data = file.read(meta_bytes), file.read(data_bytes)
    if zlib.crc32(data, zlib.crc32(meta)) != checksum:
        return None
    return meta, data
