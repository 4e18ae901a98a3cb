"""Moves what ended jobs have used from `fleet:unsettled` into the ledgers of their tenants.

The script of a job's last event adds it to that stream, so that no end is missed. The maintainer
settles the stream every `FLEET_REAP_S`; a shim does before it answers a question or refuses a
tenant. Each tenant's hash holds the id of its last settled entry: an entry counts once, whoever
settles, and however often a settlement breaks off.

A job that its worker ended in its first attempt brings its counts. Any other's are read from its
log, which does not change any more.
"""

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from contract import redis_keys
from contract.cost import BYTES_A_TOKEN, prompt_estimate
from contract.errors import JobNotFound, NewerVersion
from contract.usage import NANO, UsageCounts
from contract.wire import decode
from relay.connection import Argument, Connection, DamagedKey, ScriptCall
from relay.log import Log
from relay.records import Records
from relay.scripts.loader import load
from relay.subscriber import Subscriber
from relay.usage.ended_job import EndedJobUsage
from relay.usage.job_meter import JobMeter
from telemetry.repeated_warnings import RepeatedWarnings
from telemetry.series import OTHER

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_AT_ONCE: Final = 500
_LOGS_AT_ONCE: Final = 50
"""Jobs of one pass whose logs are read."""
SPENDING_TTL_S: Final = 62 * 86400
"""Longer than the month that a limit may be of."""
_MARK: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}", re.ASCII)
_EPOCH: Final = date(1970, 1, 1).toordinal()

Row = tuple[str, str, str]


class _Entry(NamedTuple):
    """One entry of the stream."""

    id: str
    job_id: str
    used: EndedJobUsage

    @property
    def at(self) -> datetime:
        """When the job ended."""
        return datetime.fromtimestamp(int(self.id.partition("-")[0]) / 1000, UTC)


class Part:
    """What one tenant's jobs of one day have used, and up to which entry."""

    def __init__(self, tenant: str, at: datetime, mark_before: str) -> None:
        """Nothing yet; `at` is within the day."""
        self.tenant = tenant
        self.at = at
        self.mark_before = mark_before
        self.mark = mark_before
        self.rows: dict[Row, UsageCounts] = {}
        self.reserving: list[tuple[str, UsageCounts]] = []
        """Jobs for which something is reserved, each with all that it used."""
        self.others = UsageCounts()

    def add(self, entry: _Entry, counts: UsageCounts) -> None:
        """Add the next entry."""
        self.mark = entry.id
        if counts.requests:
            self.rows[entry.used.field] = self.rows.get(entry.used.field, UsageCounts()).plus(
                counts
            )
        if entry.used.reserved:
            self.reserving.append((entry.job_id, counts))
        else:
            self.others = self.others.plus(counts)


class Settlement:
    """Settles what waits; any number of processes may do it at once."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._log = Log(connection, Subscriber(connection))  # which is not needed to read
        self._turn = asyncio.Lock()

    async def settle(self, seconds: float) -> None:
        """Settle what waits, for about so many seconds at most; raises RelayUnavailable."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        async with self._turn:
            while await self._settle_page() and now() < until:
                pass

    async def _settle_page(self) -> bool:
        """Settle one page. Returns whether there may be more."""
        found = await self._connection.command(
            "XRANGE", redis_keys.UNSETTLED, "-", "+", "COUNT", _AT_ONCE
        )
        if not found:
            return False
        entries, last = _read(found)
        # Another process may have settled fewer of them: what is refused must be read again.
        if all([await self._write(part) for part in await self._parts(entries)]):
            await self._connection.command("XTRIM", redis_keys.UNSETTLED, "MINID", _following(last))
        return True

    async def _parts(self, entries: Sequence[_Entry]) -> list[Part]:
        """What is not settled yet, by tenant and day, in the order of the entries."""
        marks = await self._marks(dict.fromkeys(entry.used.tenant for entry in entries))
        parts: list[Part] = []
        open_parts: dict[str, Part] = {}
        for entry in entries:
            tenant = entry.used.tenant
            mark = marks[tenant]
            if _MARK.fullmatch(mark) and _number(entry.id) <= _number(mark):
                continue
            part = open_parts.get(tenant)
            if part is None or part.at.date() != entry.at.date():
                part = Part(tenant, entry.at, part.mark if part else mark)
                open_parts[tenant] = part
                parts.append(part)
            part.add(entry, entry.used.settled(await self._measured(entry)))
        return parts

    async def _marks(self, tenants: Iterable[str]) -> dict[str, str]:
        """The last settled entry of each tenant; empty: none."""
        names = list(tenants)
        marks = await self._connection.replies(
            [("HGET", redis_keys.spending(name), "mark") for name in names]
        )
        return {
            name: self._mark(name, mark or b"") for name, mark in zip(names, marks, strict=True)
        }

    def _mark(self, tenant: str, stored: bytes) -> str:
        """The mark that a tenant's hash holds; what is none is deleted by what is settled next."""
        mark = stored.decode("utf-8", "surrogateescape")
        if mark and not _MARK.fullmatch(mark):
            error = ValueError("its mark is no id of an entry")
            self._connection.pass_over(redis_keys.spending(tenant), error)
        return mark

    async def _measured(self, entry: _Entry) -> UsageCounts | None:
        """What a job used by its log; None if it need not be read, or is gone."""
        if not entry.used.needs_log:
            return None
        meter = JobMeter()
        try:
            async with aclosing(self._log.read(entry.job_id)) as pages:
                async for frames in pages:
                    for frame in frames:
                        meter.add_frame(frame)
            request = await self._records.request(entry.job_id)
        except (JobNotFound, NewerVersion):
            tokens = await self._tokens_without_request(entry.job_id)
            return meter.counts(lambda: tokens) if meter.attempts else None
        return meter.counts(lambda: prompt_estimate(request)) if meter.attempts else None

    async def _tokens_without_request(self, job_id: str) -> int:
        """The estimated tokens of a prompt that was not kept, by the size of its request."""
        facts = await self._connection.command("HGET", redis_keys.record(job_id), "facts")
        return int(json.loads(facts or b"{}").get("bytes") or 0) // BYTES_A_TOKEN

    async def _write(self, part: Part) -> bool:
        """Settle a part; False if another process has moved the tenant's mark meanwhile."""
        settings = self._connection.settings
        ttl_s = int(settings.usage_ttl_s)
        # The index first: a tenant that is in it without usage does no harm.
        await self._connection.call(index_tenant(part.tenant, f"{part.at:%F}", ttl_s))
        call = settle(part, ttl_s=ttl_s, most_rows=settings.usage_rows)
        try:
            is_settled = await self._connection.call(call)
        except DamagedKey as error:  # of one tenant, which keeps nobody else's usage waiting
            self._connection.pass_over(f"the usage of tenant {part.tenant}", error)
            return True
        if not is_settled:
            _log.debug("another process has settled usage of %s", part.tenant)
            return False
        cost_nano = sum(counts.cost_nano for counts in part.rows.values())
        self._connection.observer.on_settled(part.tenant, cost_nano / NANO)
        if part.reserving:
            members = [f"{part.tenant} {job_id}" for job_id, _ in part.reserving]
            await self._connection.command("ZREM", redis_keys.RESERVING, *members)
        return True


def index_tenant(tenant: str, day: str, ttl_s: int) -> ScriptCall[bool]:
    """Note that a tenant used something on a day (`2026-11-29`)."""
    return ScriptCall(load("usage/index"), [redis_keys.usage_tenants(day)], [tenant, ttl_s], bool)


def settle(part: Part, *, ttl_s: int, most_rows: int) -> ScriptCall[bool]:
    """Add to a tenant's ledger and limits; False if another process has settled meanwhile."""
    args: list[Argument] = [
        part.mark_before.encode("utf-8", "surrogateescape"), part.mark, day_number(part.at),
        month_number(part.at), ttl_s, SPENDING_TTL_S, most_rows, len(part.rows),
    ]  # fmt: skip
    for row, counts in part.rows.items():
        args += [_field(row), _field((OTHER, row[1], OTHER)), " ".join(map(str, counts))]
    for job_id, counts in (*part.reserving, ("", part.others)):
        args += [job_id, counts.prompt_tokens + counts.completion_tokens, counts.cost_nano]
    keys = [
        redis_keys.spending(part.tenant), redis_keys.usage(part.tenant, f"{part.at:%F}"),
        redis_keys.reserved(part.tenant),
    ]  # fmt: skip
    return ScriptCall(load("usage/settle"), keys, args, bool)


def day_number(at: datetime) -> int:
    """Days since 1970 (UTC)."""
    return at.date().toordinal() - _EPOCH


def month_number(at: datetime) -> int:
    """Months since the year 0."""
    return at.year * 12 + at.month - 1


def _field(row: Row) -> str:
    return json.dumps(row)


def _read(found: Sequence[Any]) -> tuple[list[_Entry], str]:
    """The entries up to a number of logs to read, and the id of the last one."""
    entries: list[_Entry] = []
    logs, last = 0, ""
    for id, fields in found:
        last = id.decode(errors="replace")
        try:
            used = decode(EndedJobUsage, fields[b"usage"])
            used.settled(None)  # raises for an invalid price
            job_id = fields[b"job"].decode()
        except (ValueError, KeyError):
            _repeated.warn(
                "%s: the usage of job %r cannot be read, and is not counted",
                redis_keys.UNSETTLED, fields.get(b"job", b"")[:64],
            )  # fmt: skip
            continue
        entries.append(_Entry(last, job_id, used))
        logs += used.needs_log
        if logs == _LOGS_AT_ONCE:
            break
    return entries, last


def _number(id: str) -> tuple[int, int]:
    milliseconds, _, sequence = id.partition("-")
    return int(milliseconds), int(sequence)


def _following(id: str) -> str:
    milliseconds, sequence = _number(id)
    return f"{milliseconds}-{sequence + 1}"
