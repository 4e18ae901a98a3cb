"""Dead letters: jobs that ran out of attempts, and messages that no worker can read.

A retry is a new job, because a log has exactly one terminal event. The new job's id is written into
the dead job's record before it is enqueued: a second retry finds the same job, and repeats the
enqueue if the shim died in between.

Anything that writes to Redis may write to a queue's list, which is Celery's. An entry that is
neither a ticket nor a job does not stop a worker: it is kept here with its bytes and counted.
Each script may be run twice.
"""

import base64
import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, NamedTuple
from uuid import uuid4

from contract import redis_keys
from contract.errors import FleetError, NewerVersion, NotDead, RelayUnavailable
from contract.events import Failed
from contract.jobs import (
    AnyRequest,
    DeadGroup,
    DeadGroups,
    DeadLetter,
    DeadMessage,
    DeadMessages,
    DeadPage,
    DeadPurged,
    DeadView,
    JobRecord,
    JobSummary,
    QueuePlace,
)
from contract.requests import Kind
from contract.tenants import Tenant
from relay.compaction.log_reader import frames_of, until_end
from relay.connection import Argument, Connection, ScriptCall
from relay.queue import Queue
from relay.records import Records, sees
from relay.scripts.loader import load
from relay.turns.list_turns import list_turns
from relay.usage.settlement import Settlement

_PURGED_AT_ONCE: Final = 500
_SETTLE_S: Final = 1.0
"""For what these jobs used, which is read from their logs (docs/adr/0052)."""
_GROUPED: Final = 2000
_AT_ONCE: Final = 200
"""Logs whose last event one round trip reads."""
_LOOKED_BACK: Final = 16
"""Entries of a log behind its end that are none of the fleet's, at most."""
_NAMED: Final = 5
_VARYING: Final = re.compile(r"[0-9a-f]{8,}|\d+(?:[.:]\d+)*", re.IGNORECASE)
"""Ids, numbers, times and addresses in an error's text."""
KEPT_BYTES: Final = 64 * 1024
"""Of one message."""
_KEPT_MESSAGES: Final = 1000
_PAGE_BYTES: Final = 4 * 2**20
"""Of all messages that one call returns."""


class DeadLetterFilter(NamedTuple):
    """Selects dead letters: those that a tenant sees and that match all other fields."""

    visible_to: Tenant
    queue: str | None = None
    kind: Kind | None = None
    tenant: str | None = None

    @property
    def owner(self) -> str | None:
        """The one tenant whose letters are selected; None: all tenants'."""
        return self.tenant if self.visible_to.admin else self.visible_to.name

    def matches(self, record: JobRecord) -> bool:
        """Whether a record is selected."""
        return (
            sees(self.visible_to, record)
            and self.queue in (None, record.queue)
            and self.kind in (None, record.kind)
            and self.tenant in (None, record.tenant)
        )


class Retried(NamedTuple):
    """The job that repeats a dead one."""

    record: JobRecord
    place: QueuePlace
    is_new: bool
    """Whether this is the first retry of the dead job."""


class DeadLetters:
    """Lists, shows, retries and purges dead letters."""

    def __init__(
        self, connection: Connection, has_webhooks: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Use this connection; `has_webhooks`: whether a tenant has some, for retried jobs."""
        self._connection = connection
        self._records = Records(connection)
        self._queue = Queue(connection, has_webhooks)
        self._settlement = Settlement(connection)

    async def page(
        self, wanted: DeadLetterFilter, *, limit: int, before: str | None = None
    ) -> DeadPage:
        """A page, the last to die first; `before` is the `next` of the previous page.

        A page with a `next` may have fewer than `limit` letters: the number of records that one
        call reads is bounded.
        Raises RelayUnavailable.
        """
        async with list_turns().turn(wanted.visible_to.name):
            records, cursor = await self._found(wanted, limit, before)
            return DeadPage(letters=tuple(await self._letters(records)), next=cursor)

    async def groups(self, wanted: DeadLetterFilter) -> DeadGroups:
        """The newest 2,000 letters that match, grouped by how they failed.

        Raises RelayUnavailable.
        """
        letters, complete = await self.newest(wanted, _GROUPED)
        by_print: dict[str, list[DeadLetter]] = {}
        for letter in letters:
            by_print.setdefault(fingerprint(letter), []).append(letter)
        groups = [_group(name, alike) for name, alike in by_print.items()]
        groups.sort(key=lambda group: (-group.count, group.fingerprint))
        return DeadGroups(groups=tuple(groups), counted=len(letters), complete=complete)

    async def newest(self, wanted: DeadLetterFilter, limit: int) -> tuple[list[DeadLetter], bool]:
        """Up to `limit` letters that match, the last to die first, and whether these are all.

        Raises RelayUnavailable.
        """
        async with list_turns().turn(wanted.visible_to.name):
            records, cursor = await self._found(wanted, limit, None)
            letters = []
            for first in range(0, len(records), _AT_ONCE):
                letters += await self._letters(records[first : first + _AT_ONCE])
            return letters, cursor is None

    async def count(self, lately_s: float) -> tuple[int, int]:
        """How many dead letters there are, and how many came in the last `lately_s` seconds.

        Raises RelayUnavailable.
        """
        since = self._connection.now() - lately_s
        every, lately = await self._connection.pipeline(
            [("ZCARD", redis_keys.DEAD), ("ZCOUNT", redis_keys.DEAD, f"{since:.3f}", "+inf")]
        )
        return int(every), int(lately)

    async def show(self, record: JobRecord) -> DeadView:
        """A dead job with its request; raises NotDead, JobNotFound, RelayUnavailable."""
        _must_be_dead(record)
        (letter,) = await self._letters([record])
        try:
            request = await self._records.request(record.id)
        except NewerVersion as error:
            asked: dict[str, Any] = {"kind": record.kind, "unknown": str(error)}
        else:
            fields = request.model_dump(mode="json", exclude_defaults=True, exclude={"route"})
            asked = {"kind": request.kind, **fields}
        return DeadView(**dict(letter), metadata=record.metadata, request=asked)

    async def retry(self, record: JobSummary, tenant: Tenant) -> Retried:
        """Enqueue a dead job again, for its tenant; a second retry returns the same new job.

        Raises NotDead, JobNotFound, QueueFull, RelayUnavailable.
        """
        choice = await self._connection.call(choose_retry(record.id, uuid4().hex))
        if choice is None:
            raise _not_dead(record)
        chosen, is_open = choice
        if not is_open:
            return await self._retried_before(record, chosen)
        new, place = await self._enqueue(record, tenant, chosen)
        await self._connection.call(confirm_retry(record.id, chosen, new.id))
        return Retried(new, place, is_new=record.retried_as is None)

    async def _retried_before(self, record: JobSummary, job_id: str) -> Retried:
        found = await self._records.find(job_id)
        if found is None:
            raise NotDead(
                f"job {record.id} was retried as {job_id}, which ended so long ago that its log "
                "has expired: enqueue it anew if it is still wanted"
            )
        return Retried(found, await self._queue.positions.place(found), is_new=False)

    async def _enqueue(
        self, record: JobSummary, tenant: Tenant, job_id: str
    ) -> tuple[JobRecord, QueuePlace]:
        request = _of_target(await self._records.request(record.id), record.target)
        if record.retention_s:
            request = request.model_copy(update={"retention": record.retention_s})
        try:
            return await self._queue.enqueue(
                request, queue=record.queue, tenant=tenant, job_id=job_id, retry_of=record.id
            )
        except FleetError:
            with suppress(RelayUnavailable):
                await self._connection.call(withdraw_retry(record.id, job_id))
            raise

    async def purge(self, record: JobRecord) -> DeadPurged:
        """Delete a dead job; raises NotDead, RelayUnavailable."""
        _must_be_dead(record)
        await self._settlement.settle(_SETTLE_S)
        return DeadPurged(purged=await self._connection.call(delete_letter(record)))

    async def purge_all(self, wanted: DeadLetterFilter, *, before: str | None = None) -> DeadPurged:
        """Delete up to 500 dead jobs that match, the last to die first; raises RelayUnavailable."""
        await self._settlement.settle(_SETTLE_S)
        async with list_turns().turn(wanted.visible_to.name):
            records, cursor = await self._found(wanted, _PURGED_AT_ONCE, before)
        purged = await self._connection.calls([delete_letter(record) for record in records])
        return DeadPurged(purged=sum(purged), next=cursor)

    async def _found(
        self, wanted: DeadLetterFilter, limit: int, before: str | None
    ) -> tuple[list[JobRecord], str | None]:
        """Records that match, and the cursor if there may be more."""
        found: list[JobRecord] = []
        cursor = before
        rows: AsyncGenerator[tuple[str | None, JobRecord | None]] = (
            self._records.newest_first(redis_keys.DEAD, before)
            if wanted.owner is None
            else self._records.newest_of_tenant(redis_keys.DEAD, wanted.owner, before)
        )
        async with aclosing(rows):
            async for cursor, record in rows:
                if record and wanted.matches(record):
                    found.append(record)
                if len(found) == limit:
                    return found, cursor
        left = cursor and await self._connection.command(
            "ZCOUNT", redis_keys.DEAD, "-inf", f"({cursor}"
        )
        return found, cursor if left else None

    async def _letters(self, records: Sequence[JobRecord]) -> list[DeadLetter]:
        errors = [_error(each) for each in await self._ends(records, 1)]
        unread = [record for record, error in zip(records, errors, strict=True) if error is None]
        if unread:  # another program has put something behind the end
            found = map(_error, await self._ends(unread, _LOOKED_BACK))
            errors = [error or next(found) for error in errors]
        return [
            DeadLetter(**_summary(record), error=error)
            for record, error in zip(records, errors, strict=True)
        ]

    async def _ends(self, records: Sequence[JobRecord], entries: int) -> list[Any]:
        """The last entries of logs, the last first."""
        return await self._connection.replies(
            [
                ("XREVRANGE", redis_keys.log(record.id), "+", "-", "COUNT", entries)
                for record in records
            ]
        )


def _summary(record: JobRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in JobSummary.model_fields}


def _of_target(request: AnyRequest, at: int) -> AnyRequest:
    """The request for the target of its alias with which it died, and those after it."""
    if request.route is None:
        return request
    route = request.route.model_copy(update={"targets": request.route.targets[at:]})
    return request.model_copy(update={"route": route})


def _error(entries: Sequence[Any]) -> Failed | None:
    if not entries:
        return None
    try:
        event = until_end(frames_of(entries[::-1]))[-1].event
    except (NewerVersion, ValueError, IndexError):
        return None  # the letter is listed also with a log that cannot be read
    return event if isinstance(event, Failed) else None


def fingerprint(letter: DeadLetter) -> str:
    """The same text for letters that failed alike: 12 hexadecimal digits."""
    code, message = (letter.error.code, letter.error.message) if letter.error else ("", "")
    alike = (letter.kind, letter.model or "", code, _VARYING.sub("#", message))
    return hashlib.sha256("\0".join(alike).encode()).hexdigest()[:12]


def _group(name: str, alike: Sequence[DeadLetter]) -> DeadGroup:
    """`alike` are at least one, the last to die first."""
    newest = alike[0]
    times = [letter.dead_at for letter in alike if letter.dead_at is not None]
    return DeadGroup(
        fingerprint=name,
        count=len(alike),
        kind=newest.kind,
        model=newest.model,
        code=newest.error.code if newest.error else "",
        message=newest.error.message if newest.error else "",
        queues=tuple(sorted({letter.queue for letter in alike})),
        tenants=tuple(sorted({letter.tenant for letter in alike}))[:_NAMED],
        first_at=min(times),
        last_at=max(times),
        newest=tuple(letter.id for letter in alike[:_NAMED]),
    )


def _must_be_dead(record: JobRecord) -> None:
    if record.dead_at is None:
        raise _not_dead(record)


def _not_dead(record: JobSummary) -> NotDead:
    return NotDead(
        f"job {record.id} is no dead letter but {record.status}: only a job that ran out of "
        "attempts is; enqueue another one instead"
    )


class UnreadableMessages:
    """Stores and lists messages that no worker can read; methods raise RelayUnavailable."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def put(
        self, queue: str, *, reason: str, size_bytes: int, data: bytes, job_id: str | None = None
    ) -> None:
        """Store the first 64 KiB of a message whose whole size is `size_bytes`.

        Raises RelayUnavailable.
        """
        ttl_s = int(self._connection.settings.dead_ttl_s)
        await self._connection.call(
            keep_message(
                queue,
                data[:KEPT_BYTES],
                reason=reason,
                size_bytes=size_bytes,
                job_id=job_id or "",
                limit=_KEPT_MESSAGES,
                ttl_s=ttl_s,
            )
        )

    async def page(self, *, limit: int = 100) -> DeadMessages:
        """Up to `limit` messages, newest first; raises RelayUnavailable."""
        entries, counts = await self._connection.replies(
            [
                ("XREVRANGE", redis_keys.UNREADABLE, "+", "-", "COUNT", limit),
                ("HVALS", redis_keys.UNREADABLE_COUNTS),
            ]
        )
        most_bytes, found, total = min(KEPT_BYTES, _PAGE_BYTES // (len(entries or ()) or 1)), [], 0
        for entry in entries or ():
            with self._connection.passing_over(f"{redis_keys.UNREADABLE}, {entry[0].decode()}"):
                found.append(_message(entry, most_bytes))
        for count in counts or ():
            with self._connection.passing_over(redis_keys.UNREADABLE_COUNTS):
                total += int(count)
        return DeadMessages(messages=tuple(found), total=total)

    async def count(self) -> int:
        """The number of stored messages; raises RelayUnavailable."""
        return int(await self._connection.command("XLEN", redis_keys.UNREADABLE))

    async def purge(self) -> DeadPurged:
        """Delete all messages; raises RelayUnavailable."""
        kept, _ = await self._connection.pipeline(
            [
                ("XLEN", redis_keys.UNREADABLE),
                ("DEL", redis_keys.UNREADABLE, redis_keys.UNREADABLE_COUNTS),
            ]
        )
        return DeadPurged(purged=int(kept))


def _message(entry: Any, most_bytes: int) -> DeadMessage:
    id, fields = entry[0].decode(errors="replace"), entry[1]
    return DeadMessage(
        id=id,
        queue=fields[b"queue"].decode(errors="replace"),
        at=int(id.partition("-")[0]) / 1000,
        reason=fields[b"reason"].decode(errors="replace"),
        size_bytes=int(fields[b"size_bytes"]),
        data=base64.b64encode(fields[b"data"][:most_bytes]).decode("ascii"),
        job_id=fields[b"job_id"].decode(errors="replace") or None,
    )


# Scripts of relay/lua/dead_letters.


def choose_retry(job_id: str, new_id: str) -> ScriptCall[tuple[str, bool] | None]:
    """Choose the job that repeats a dead one: `new_id`, unless one was chosen before.

    Returns its id, and whether it may still have to be enqueued; None if the job is no dead letter.
    """
    return ScriptCall(load("dead_letters/choose_retry"), _listed(job_id), [job_id, new_id], _choice)


def confirm_retry(job_id: str, chosen_id: str, new_id: str) -> ScriptCall[bool]:
    """Remove a dead letter from the list: its retry was enqueued as `new_id`."""
    args = [job_id, chosen_id, new_id]
    return ScriptCall(load("dead_letters/confirm_retry"), _listed(job_id), args, bool)


def withdraw_retry(job_id: str, new_id: str) -> ScriptCall[bool]:
    """Let the next retry choose again; false if `new_id` was accepted or is not the chosen one."""
    keys = [redis_keys.record(job_id), redis_keys.record(new_id)]
    return ScriptCall(load("dead_letters/withdraw_retry"), keys, [new_id], bool)


def delete_letter(record: JobRecord) -> ScriptCall[int]:
    """Delete a dead letter. Returns 1; 0 if the job is no dead letter."""
    keys = [
        redis_keys.record(record.id), redis_keys.log(record.id), redis_keys.DEAD, redis_keys.RECENT,
        redis_keys.recent(record.tenant),
    ]  # fmt: skip
    return ScriptCall(load("dead_letters/purge"), keys, [record.id], int)


def _listed(job_id: str) -> list[str]:
    return [redis_keys.record(job_id), redis_keys.DEAD]


def _choice(reply: Any) -> tuple[str, bool] | None:
    return (reply[0].decode(errors="replace"), bool(reply[1])) if reply else None


def keep_message(
    queue: str, data: bytes, *, reason: str, size_bytes: int, job_id: str, limit: int, ttl_s: int
) -> ScriptCall[bool]:
    """Add a message to the newest `limit`, and count it; all of them expire after `ttl_s` seconds.

    `data` is the beginning of a message of `size_bytes`; `job_id` may be empty.
    """
    keys = [redis_keys.UNREADABLE, redis_keys.UNREADABLE_COUNTS]
    args: list[Argument] = [limit, ttl_s, queue, reason, size_bytes, data, job_id]
    return ScriptCall(load("dead_letters/keep_message"), keys, args, bool)
