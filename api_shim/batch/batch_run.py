"""One batch from its first line to its last, by one driver; another driver can resume it.

Whatever must survive this process is in Redis first: that the input file is valid and how many rows
it has, up to which row jobs may exist, and which part holds the result of which row. A driver
rebuilds the rest of its state from the file and from the logs of jobs.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Final, Never
from uuid import uuid4

import anyio.to_thread

from api_shim.batch.job_window import JobWindow, RowDeferred, job_id_of
from api_shim.batch.lines import InputLine, InputValidator, PendingRow, RowReader, split_lines
from api_shim.batch.parts import (
    ERRORS,
    KEY_REVOKED,
    OUTPUT,
    PartWriter,
    not_run,
    stored_parts,
)
from api_shim.dependencies import Dependencies
from api_shim.following.background_work import cancelled
from contract.batches import LastStatus, LineError, StoredFile
from contract.errors import LeaseLost, RelayUnavailable, UnknownFile
from contract.events import LAST_WORDS
from relay.batches import BatchJobs, BatchLease, BatchStore
from relay.files import stored_name

_log = logging.getLogger(__name__)

_NAMES: Final = {OUTPUT: "output", ERRORS: "error"}


class BatchFinisher:
    """Writes the output and error files of a batch, and ends it."""

    def __init__(self, dependencies: Dependencies, batches: BatchStore, lease: BatchLease) -> None:
        """Nothing is written yet."""
        self._dependencies = dependencies
        self._batches = batches
        self._lease = lease
        self._batch = lease.batch
        self._missing: list[str] = []

    async def finish(self, status: LastStatus, errors: Sequence[LineError] = ()) -> bool:
        """Write the files, whatever the status, and end the batch; `errors` are of the whole of it.

        A batch that completed without a failure has no error file: clients read one as a failure.
        Returns False if the lease is lost, or if some rows have no result (any more). Raises
        StorageUnavailable, RelayUnavailable.
        """
        parts = await self._batches.parts(self._batch.id)
        has_errors = status != "completed" or any(ERRORS in part for part in parts)
        output = await self._joined(parts, OUTPUT)
        failed = await self._joined(parts, ERRORS) if has_errors else None
        lost = [
            LineError(code="output_lost", message=f"The storage of files has lost {name}.")
            for name in self._missing
        ]
        last: LastStatus = "failed" if lost else status
        ended = await self._batches.finish(
            self._lease, last, files=(output, failed), errors=[*errors, *lost]
        )
        if ended:
            self._dependencies.metrics.process.series.count("batches_total", last)
        return ended

    async def _joined(self, parts: list[str], ending: str) -> StoredFile:
        """Join the parts into a file under a new id; its record is created when the batch ends."""
        file_id = f"file-{uuid4().hex}"
        name = stored_name(file_id)
        await self._dependencies.files.keep(name)
        async with self._dependencies.storage.write(name) as writing:
            for part in stored_parts(self._batch.id, parts, ending):
                try:
                    async for piece in self._dependencies.storage.read(part):
                        await writing.write(piece)
                except UnknownFile:
                    _log.exception("batch %s: the storage has lost a part", self._batch.id)
                    self._missing.append(part)
        return StoredFile(
            id=file_id,
            tenant=self._batch.tenant.name,
            filename=f"{self._batch.id}_{_NAMES[ending]}.jsonl",
            purpose="batch_output",
            size_bytes=writing.size_bytes,
            expires_at=0.0,
        )


_REVOKED: Final = LineError(
    code=KEY_REVOKED,
    message="The API key that created the batch was revoked or has expired, so its requests that "
    "had not ended were not run: create a batch of them with another key.",
)
_BEAT_S: Final = 1.0
_ISSUED_AHEAD: Final = 1024
_SHORTEST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_AT_ONCE: Final = 32
"""Rows that are enqueued, or failed, concurrently."""


class BatchRun:
    """Runs one leased batch."""

    def __init__(self, dependencies: Dependencies, batches: BatchStore, lease: BatchLease) -> None:
        """Nothing has run yet."""
        self._dependencies = dependencies
        self._batches = batches
        self._lease = lease
        self._batch = lease.batch
        self._rows = BatchJobs(dependencies.connection)
        self._parts = PartWriter(
            batches, self._rows, dependencies.storage, lease, dependencies.metrics.process
        )
        self._window = JobWindow(dependencies, self._rows, self._batch)
        self._stop = asyncio.Event()
        """Set when no more rows are to be enqueued."""
        self._is_cancelled = self._batch.status == "cancelling"
        self._is_revoked = False
        """Whether the API key that created the batch is revoked, has expired or lost the right."""
        self._issued = lease.issued
        self._total = lease.batch.counts.total
        self._width = dependencies.settings.batch_window
        if self._is_cancelled or lease.gives_up:
            self._stop.set()

    async def run(self) -> None:
        """Run until the batch has ended; one whose time has not come is only validated.

        Raises LeaseLost, RelayUnavailable, StorageUnavailable: another driver resumes the batch
        later.
        """
        await self._check_key()
        working = asyncio.create_task(self._work())
        beating = asyncio.create_task(self._renew_lease())
        try:
            await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
            (working if working.done() else beating).result()
        finally:
            await cancelled([working, beating])

    async def _renew_lease(self) -> Never:
        """Renew the lease, and notice a cancel or the end of the completion window."""
        while True:
            with suppress(RelayUnavailable):  # `_work` raises it
                pulse = await self._batches.renew(
                    self._lease, self._parts.completed, self._parts.failed
                )
                if pulse is None:
                    raise self._lost
                self._is_cancelled = pulse.status == "cancelling"
                if self._is_cancelled or pulse.now >= self._batch.expires_at:
                    self._stop.set()
                await self._check_key()
                self._width = max(
                    1, self._dependencies.settings.batch_window // max(1, pulse.sharing)
                )
            await asyncio.sleep(_BEAT_S)

    async def _check_key(self) -> None:
        """Notice that the key is no longer valid; raises RelayUnavailable."""
        key_id, keys = self._batch.tenant.key_id, self._dependencies.authenticator
        if not key_id or await keys.is_in_force(key_id, "batches"):
            return
        if not self._is_revoked:
            _log.info("batch %s stops: its API key is revoked or has expired", self._batch.id)
        self._is_revoked = True
        self._stop.set()

    async def _work(self) -> None:
        if not await self._begun():
            return
        while True:
            if not self._stop.is_set():
                async with aclosing(self._source(await self._done())) as source:
                    await self._run(source)
                await self._parts.flush()
            done = await self._done()
            is_whole = int.from_bytes(done).bit_count() >= self._total
            if not is_whole and not self._stop.is_set():
                _log.warning(
                    "batch %s: Redis has lost results, so their rows run again", self._batch.id
                )
                continue
            if await self._ended(done, is_whole=is_whole):
                return

    async def _done(self) -> bytes:
        return await self._batches.done_rows(self._batch.id)

    async def _ended(self, done: bytes, *, is_whole: bool) -> bool:
        """Fail the rows without a result and end the batch; False if there are rows to run."""
        is_revoked = self._is_revoked and not is_whole and not self._is_cancelled
        gives_up = not (is_whole or self._is_cancelled or is_revoked)
        status = await self._batches.finalize(self._lease, gives_up=gives_up)
        if status is None:
            raise self._lost
        if not is_whole:
            code = KEY_REVOKED if is_revoked else f"batch_{status}"
            async with aclosing(self._source(done)) as source:
                unfinished = await self._fail_unfinished(source, code)
            await self._parts.flush()
            is_revoked = is_revoked and unfinished > 0
        finisher = BatchFinisher(self._dependencies, self._batches, self._lease)
        errors = (_REVOKED,) if is_revoked else ()
        if await finisher.finish("failed" if is_revoked else status, errors):
            return True
        if await self._batches.renew(self._lease, 0, 0) is None:
            raise self._lost
        return False

    @property
    def _lost(self) -> LeaseLost:
        return LeaseLost(f"batch {self._batch.id} is driven by another shim")

    async def _checked(self) -> bool:
        """Validate the input; False if it is invalid, which has ended the batch."""
        settings = self._dependencies.settings
        check = InputValidator(
            self._batch.endpoint,
            max_rows=settings.batch_max_rows,
            max_line_bytes=settings.max_body_bytes,
            has_one_model=settings.batch_one_model,
        )
        try:
            async with aclosing(self._blocks()) as blocks:
                async for block in blocks:
                    await anyio.to_thread.run_sync(check.add, block)
                    if check.should_stop:
                        break
            errors = check.all_errors()
        except UnknownFile as error:
            errors = (LineError(code="input_file_missing", message=error.message),)
        if not errors:
            self._total = check.rows
            return True
        status: LastStatus = "cancelled" if self._is_cancelled else "failed"
        if await self._batches.finish(self._lease, status, errors=errors):
            self._dependencies.metrics.process.series.count("batches_total", status)
        return False

    async def _begun(self) -> bool:
        """Validate and start the batch; False if it has ended so, or its time has not come."""
        if self._total and self._batch.status != "validating":
            return True
        if not self._total and not await self._checked():
            return False
        started = await self._batches.start(self._lease, self._total)
        if started is None:
            raise self._lost
        return started

    def _blocks(self) -> AsyncGenerator[list[InputLine], None]:
        pieces = self._dependencies.storage.read(stored_name(self._batch.input_file_id))
        return split_lines(pieces, self._dependencies.settings.max_body_bytes)

    def _source(self, done: bytes) -> RowReader:
        def is_done(row: int) -> bool:
            byte = row // 8
            return byte < len(done) and bool(done[byte] & (0x80 >> row % 8))

        return RowReader(self._blocks(), is_done, self._dependencies.settings.max_body_bytes)

    async def _run(self, source: RowReader) -> None:
        """Run rows until the reader is exhausted and every job has ended, or until the stop."""
        pause_s = _SHORTEST_PAUSE_S
        held_until = 0.0
        now = asyncio.get_running_loop().time
        while not self._stop.is_set():
            moved = False
            if now() >= held_until:
                moved, held_s = await self._issue(source)
                held_until = now() + held_s
            moved = await self._collect_ended() or moved
            if source.is_exhausted and not self._window.in_flight:
                return
            pause_s = _SHORTEST_PAUSE_S if moved else min(_LONGEST_PAUSE_S, pause_s * 2)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stop.wait()

    async def _issue(self, source: RowReader) -> tuple[bool, float]:
        """Enqueue some rows; whether any was, and the seconds to wait before the next."""
        room = self._width - len(self._window.in_flight)
        rows = await source.take(min(room, _AT_ONCE)) if room > 0 else []
        if not rows:
            return False, 0.0
        await self._record_issued(rows)
        issuing = (self._window.enqueue(row) for row in rows)
        outcomes = await asyncio.gather(*issuing, return_exceptions=True)
        late: list[PendingRow] = []
        pause_s = 0.0
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, RowDeferred):
                late.append(row)
                pause_s = max(pause_s, outcome.pause_s)
            elif isinstance(outcome, BaseException):
                raise outcome
            elif outcome is not None:
                await self._parts.add(*outcome)
        source.put_back(late)
        return len(late) < len(rows), pause_s

    async def _record_issued(self, rows: list[PendingRow]) -> None:
        """Record in Redis that jobs of these rows may exist, some rows ahead."""
        last = max(row.number for row in rows) + 1
        if last > self._issued:
            self._issued = last + _ISSUED_AHEAD
            if not await self._batches.issue(self._lease, self._issued):
                raise self._lost

    async def _collect_ended(self) -> bool:
        """Collect the results of jobs that have ended. Returns whether there were any."""
        ended_ids = await self._window.ended_ids()
        waiting = deque(ended_ids)
        while waiting:
            at_once = min(self._window.at_once, len(waiting))
            for answer, job_id in await self._window.collect(
                [waiting.popleft() for _ in range(at_once)]
            ):
                await self._parts.add(answer, job_id)
        if self._parts.is_due:
            await self._parts.flush()
        return bool(ended_ids)

    async def _fail_unfinished(self, source: RowReader, code: str) -> int:
        """Give each remaining row a result: that of its job if it has ended, else this code.

        Returns how many got the code.
        """
        count = 0
        while rows := await source.take(_AT_ONCE):
            ids = [job_id_of(self._batch.id, row.number) for row in rows]
            may_exist = [id for id, row in zip(ids, rows, strict=True) if row.number < self._issued]
            known = dict(zip(may_exist, await self._rows.statuses(may_exist), strict=True))
            for id, row in zip(ids, rows, strict=True):
                exists = known.get(id) is not None
                count += await self._is_row_failed(row, id, code, exists=exists)
        return count

    async def _is_row_failed(
        self, row: PendingRow, job_id: str, code: str, *, exists: bool
    ) -> bool:
        """Give a row its result; returns whether that is the code."""
        if exists:
            record = await self._dependencies.queue.cancel(job_id, by="batch", reason=code)
            in_flight = await self._window.in_flight_row(row, job_id)
            if record.status in LAST_WORDS and record.status != "cancelled" and in_flight:
                await self._parts.add(await self._window.answer(job_id, in_flight), job_id)
                return False
        answer = not_run(row.number, job_id, row.row.custom_id, code)
        await self._parts.add(answer, job_id)
        return True
