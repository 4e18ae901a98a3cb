"""Limits of tokens and money: what a job may use is reserved before it is enqueued.

A job counts in the minute, day and month in which it was enqueued, or, if it is for later, in those
of its `not_before`. At its end the settlement
(`settlement.py`) replaces what was reserved by what was used. So jobs that run side by side never
exceed a limit together, as long as each keeps to its reservation: the estimated tokens of its
prompt, and `max_tokens` or FLEET_ANSWER_TOKENS, after which its worker ends the answer.

Only jobs of tenants with a limit cost anything here: a script before the enqueue.
"""

import asyncio
import math
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, NamedTuple

from contract import redis_keys
from contract.aliases.parameters import applied
from contract.chat import ChatRequest
from contract.cost import prompt_estimate
from contract.errors import BudgetSpent, FleetError, OverLimit, RateLimited, RelayUnavailable
from contract.events import LAST_WORDS
from contract.images import ImageRequest
from contract.jobs import AnyRequest, JobRecord
from contract.roster import utc
from contract.tenants import Tenant
from contract.usage import (
    NANO,
    LimitName,
    LimitView,
    ModelPrice,
    TenantUsage,
    UsageCounts,
    price_of,
)
from contract.wire import encode
from relay.connection import Argument, Connection, Hash, ScriptCall
from relay.scripts import jobs
from relay.scripts.loader import load
from relay.usage.settlement import SPENDING_TTL_S, Settlement, day_number, month_number

_TEMPLATE_TOKENS: Final = 8
"""What a chat template adds to each message, about."""
_MOST_TOKENS: Final = 10**9
"""Of one answer: no model writes more, and the scripts' numbers stay exact."""
_CHECK_AFTER_S: Final = 60.0
"""Seconds after which a reservation without a job is not that of an enqueue on its way."""
_CHECK_AGAIN_S: Final = 600.0
"""Between further checks, while its job has not ended."""
_CHECKED_AT_ONCE: Final = 500
_SETTLE_EVERY_S: Final = 0.25
"""How often a process settles at most because it would refuse a tenant."""
_SETTLE_S: Final = 0.5
_SLICE_S: Final = 5
_WINDOW: Final = 12
"""As in relay/lua/shared/spending.lua: slices before the present one that a minute has."""
_COUNTED: Final = re.compile(rb"[mdn]\d+$")
_PLANNED: Final = re.compile(rb"([MDN])(\d+)$")


class Limits(NamedTuple):
    """The limits of one tenant, in the order of the script; None: no limit."""

    tokens_minute: int | None
    tokens_day: int | None
    spend_day_nano: int | None
    spend_month_nano: int | None


class UsageReservation(NamedTuple):
    """What a job may use, and what it counts against."""

    job_id: str
    queue: str
    tenant: str
    tokens: int
    cost_nano: int
    limits: Limits
    due: float | None
    """Unix seconds before which the job may not start."""
    remedy: str
    """What the caller can do, so that the job may use less."""


class ReachedLimit(NamedTuple):
    """The limit that is reached."""

    number: int
    """Its number in `Limits`, from 1."""
    used: int
    limit: int
    wait_s: float
    """Seconds until there is room; -1: there will never be."""


class TenantLimits:
    """Reserves, and tells how full the limits are."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._settlement = Settlement(connection)
        self._settled_at = -math.inf

    def of(self, tenant: Tenant) -> Limits:
        """The limits of a tenant: of its key, else of the settings."""
        settings = self._connection.settings
        return Limits(
            tenant.limit_tokens_minute or settings.tenant_tokens_minute,
            tenant.limit_tokens_day or settings.tenant_tokens_day,
            _nano(tenant.limit_spend_day or settings.tenant_spend_day),
            _nano(tenant.limit_spend_month or settings.tenant_spend_month),
        )

    def priced(
        self, record: JobRecord, request: AnyRequest, tenant: Tenant
    ) -> tuple[JobRecord, UsageReservation | None]:
        """The record with its price and what it may use, and what to reserve for it, if anything.

        Nothing is reserved for a tenant without limits, nor for what uses neither tokens nor money.
        """
        settings, request = self._connection.settings, applied(request)
        price = price_of(settings.prices, record.backend, record.model or "")
        if price is not None:
            record = record.model_copy(update={"price": encode(price).decode()})
        limits = self.of(tenant)
        if limits == _NONE:
            return record, None
        prompt = _prompt(request)
        answer = _answer(request, prompt, limits, price, settings.answer_tokens)
        images = request.count if isinstance(request, ImageRequest) else 0
        used = UsageCounts(prompt_tokens=prompt, completion_tokens=answer, images=images)
        cost_nano = (price or _FREE).cost_nano(used)
        reservation = UsageReservation(
            record.id, record.queue, tenant.name, prompt + answer, cost_nano, limits,
            record.not_before, _remedy(request),
        )  # fmt: skip
        if not (reservation.tokens or reservation.cost_nano):
            return record, None
        is_bounded = not isinstance(request, ChatRequest) or request.max_tokens is not None
        changes = {
            "reserved_tokens": reservation.tokens, "answer_limit": None if is_bounded else answer,
        }  # fmt: skip
        return record.model_copy(update=changes), reservation

    @asynccontextmanager
    async def reserving(self, reservation: UsageReservation | None) -> AsyncGenerator[None]:
        """Reserve for a job that is enqueued within; nothing for None.

        Taken back if the enqueue is refused. If Redis does not answer, the job may exist: then its
        end settles the reservation, and if it does not, `release_abandoned`.

        Raises RateLimited, BudgetSpent, OverLimit, RelayUnavailable.
        """
        if reservation is None:
            yield
            return
        await self._reserve(reservation)
        try:
            yield
        except RelayUnavailable:
            raise
        except FleetError:
            with suppress(RelayUnavailable):
                await self.release(reservation)
            raise

    async def _reserve(self, reservation: UsageReservation) -> None:
        refused = await self._try(reservation)
        if refused is not None and refused.wait_s >= 0 and await self._settle():
            refused = await self._try(reservation)
        if refused is not None:
            scope = Limits._fields[refused.number - 1].removesuffix("_nano")
            self._connection.observer.on_refused(reservation.queue, scope)
            now, currency = self._connection.now(), self._connection.settings.currency
            raise _refusal(reservation, refused, currency, now)

    async def _try(self, reservation: UsageReservation) -> ReachedLimit | None:
        due_at = self._connection.now() + _CHECK_AFTER_S
        member = f"{reservation.tenant} {reservation.job_id}"
        now = self._connection.now()
        # First, so that a process that dies in between leaves no reservation that nobody checks.
        _, refused = await asyncio.gather(
            self._connection.command("ZADD", redis_keys.RESERVING, f"{due_at:.3f}", member),
            self._connection.call(reserve(reservation, now)),
        )
        return refused

    async def _settle(self) -> bool:
        """Settle what has ended meanwhile. Returns False if that was done a moment ago."""
        if monotonic() - self._settled_at < _SETTLE_EVERY_S:
            return False
        self._settled_at = monotonic()
        await self._settlement.settle(_SETTLE_S)
        return True

    async def view(self, tenants: Sequence[Tenant]) -> tuple[TenantUsage, ...]:
        """How full the limits of these tenants are; raises RelayUnavailable."""
        await self._settlement.settle(_SETTLE_S)
        commands: list[tuple[str, str]] = []
        for each in tenants:
            commands.append(("HGETALL", redis_keys.spending(each.name)))
            commands.append(("HLEN", redis_keys.reserved(each.name)))
        found: list[Any] = []
        for first in range(0, len(commands), _CHECKED_AT_ONCE):
            found += await self._connection.replies(commands[first : first + _CHECKED_AT_ONCE])
        now = datetime.fromtimestamp(self._connection.now(), UTC)
        return tuple(
            TenantUsage(
                tenant=tenant.name,
                limits=tuple(_views(self.of(tenant), self._counted(tenant, fields or {}), now)),
                reserved_jobs=jobs or 0,
            )
            for tenant, fields, jobs in zip(tenants, found[::2], found[1::2], strict=True)
        )

    def _counted(self, tenant: Tenant, fields: Hash) -> Hash:
        """The fields that hold amounts; a damaged one is passed over."""
        found: dict[bytes, bytes] = {}
        for name, text in fields.items():
            if (match := _COUNTED.match(name) or _PLANNED.match(name)) is not None:
                with self._connection.passing_over(
                    f"{redis_keys.spending(tenant.name)}, {match[0]!r}"
                ):
                    found[name] = b" ".join(b"%d" % int(part) for part in text.split())
        return found

    async def release(self, reservation: UsageReservation) -> None:
        """Take a reservation back, if it is there; raises RelayUnavailable."""
        await self._connection.call(release(reservation.tenant, reservation.job_id))

    async def release_abandoned(self) -> int:
        """Take back reservations of jobs that were never enqueued, or ended without an entry.

        The latter are of workers of an older version. Returns how many; raises RelayUnavailable.
        """
        now = self._connection.now()
        found = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.RESERVING, "-inf", f"{now:.3f}",
            "LIMIT", 0, _CHECKED_AT_ONCE,
        )  # fmt: skip
        if not found:
            return 0
        pairs = [member.decode(errors="replace").rpartition(" ")[::2] for member in found]
        statuses = await self._connection.call(jobs.statuses([job_id for _, job_id in pairs]))
        # In this order: an end and its entry are written together, and what is settled is released.
        waiting = await self._connection.command("XLEN", redis_keys.UNSETTLED)
        over = [status is None or (status in LAST_WORDS and not waiting) for status in statuses]
        later = [member for member, is_over in zip(found, over, strict=True) if not is_over]
        if later:
            await self._connection.call(check_again(now + _CHECK_AGAIN_S, later))
        gone = [pair for pair, is_over in zip(pairs, over, strict=True) if is_over]
        released = await self._connection.calls_or_none([release(*pair) for pair in gone])
        members = [member for member, is_over in zip(found, over, strict=True) if is_over]
        if members:
            await self._connection.command("ZREM", redis_keys.RESERVING, *members)
        return sum(filter(None, released))


_NONE: Final = Limits(None, None, None, None)
_FREE: Final = ModelPrice()


def _nano(amount: float | None) -> int | None:
    return None if amount is None else round(amount * NANO)


def _prompt(request: AnyRequest) -> int:
    messages = len(request.messages) if isinstance(request, ChatRequest) else 0
    return prompt_estimate(request) + messages * _TEMPLATE_TOKENS


def _answer(
    request: AnyRequest, prompt: int, limits: Limits, price: ModelPrice | None, default: int
) -> int:
    """Tokens to reserve for the answer: a default is no more than the limits ever allow."""
    if not isinstance(request, ChatRequest):
        return 0
    if request.max_tokens is not None:
        return min(request.max_tokens, _MOST_TOKENS)
    rooms = [limit - prompt for limit in limits[:2] if limit is not None]
    if price is not None and price.output:
        spent = price.cost_nano(UsageCounts(prompt_tokens=prompt))
        each = price.cost_nano(UsageCounts(completion_tokens=1_000_000)) / 1_000_000
        rooms += [int((limit - spent) / each) for limit in limits[2:] if limit is not None]
    return max(1, min([default, *rooms]))


class _Words(NamedTuple):
    """How a limit is told."""

    field: LimitName
    setting: str
    period: str


_WORDS: Final = (
    _Words("limit_tokens_minute", "FLEET_TENANT_TOKENS_MINUTE", "tokens a minute"),
    _Words("limit_tokens_day", "FLEET_TENANT_TOKENS_DAY", "tokens a day (UTC)"),
    _Words("limit_spend_day", "FLEET_TENANT_SPEND_DAY", "{} a day (UTC)"),
    _Words("limit_spend_month", "FLEET_TENANT_SPEND_MONTH", "{} a month (UTC)"),
)


def _refusal(
    reservation: UsageReservation, refused: ReachedLimit, currency: str, now: float
) -> RateLimited | BudgetSpent | OverLimit:
    words = _WORDS[refused.number - 1]
    is_money = refused.number > 2  # noqa: PLR2004 - the first two are tokens
    unit = NANO if is_money else 1
    used, limit = refused.used / unit, refused.limit / unit
    needs = (reservation.cost_nano if is_money else reservation.tokens) / unit
    limited = (
        f"tenant {reservation.tenant} may use {_plain(limit)} {words.period.format(currency)} "
        f"({words.field} of its key, or {words.setting})"
    )
    facts: dict[str, Any] = {"scope": "tenant", "limit": limit, "held": used}
    if refused.wait_s < 0:
        return OverLimit(
            f"{limited}, and this request alone may use {_plain(needs)}: {reservation.remedy}, or "
            "have the limit raised",
            **facts,
        )
    when, remedy = "", f"try again in {math.ceil(refused.wait_s)} s"
    if reservation.due is not None and reservation.due > now:
        when = f" for {utc(reservation.due)}"
        remedy = f"choose a not_before from {utc(now + refused.wait_s)} on"
    text = (
        f"{limited}; {_plain(used)} are used or reserved{when}, and this request may use "
        f"{_plain(needs)}: {remedy}, {reservation.remedy}, or have the limit raised"
    )
    kind = RateLimited if refused.number == 1 else BudgetSpent
    return kind(text, retry_after_s=refused.wait_s, **facts)


def _plain(amount: float) -> str:
    """An amount without an exponent."""
    return f"{amount:.6f}".rstrip("0").rstrip(".")


def _remedy(request: AnyRequest) -> str:
    match request:
        case ChatRequest():
            return "lower max_tokens"
        case ImageRequest():
            return "ask for fewer images"
        case _:
            return "send fewer texts at once"


def _views(limits: Limits, fields: Hash, now: datetime) -> Iterator[LimitView]:
    """The limits that there are, by what relay/lua/shared/spending.lua has written."""
    amounts = _amounts(fields)
    slice_ = int(now.timestamp() // _SLICE_S)
    minute = sum(amounts["m", slice_ - at][0] for at in range(_WINDOW + 1))
    day_tokens, day_nano = amounts["d", day_number(now)]
    _, month_nano = amounts["n", month_number(now)]
    day_s, month_s = (end.total_seconds() for end in _left(now))
    used = (minute, day_tokens, day_nano, month_nano)
    ends_s = (_SLICE_S * (_WINDOW + 1), day_s, day_s, month_s)
    for words, limit, amount, end_s, unit in zip(
        _WORDS, limits, used, ends_s, (1, 1, NANO, NANO), strict=True
    ):
        if limit is not None:
            yield LimitView(
                name=words.field, limit=limit / unit, used=amount / unit,
                free_in_s=round(end_s, 1) if amount else 0.0,
            )  # fmt: skip


def _amounts(fields: Hash) -> Mapping[tuple[str, int], tuple[int, int]]:
    """Tokens and billionths of each slice (m), day (d) and month (n), used and reserved."""
    found: defaultdict[tuple[str, int], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for name, text in fields.items():
        numbers = [int(part) for part in text.split() if part.isdigit()]
        if _COUNTED.match(name) and len(numbers) > 2:  # noqa: PLR2004 - what they are
            number, *counted = numbers
            where = name[:1].decode(), number
        elif (planned := _PLANNED.match(name)) and len(numbers) > 1:
            counted = numbers
            where = planned[1].decode().lower(), int(planned[2])
        else:  # another field, or none that the fleet has written
            continue
        tokens, nano = found[where]
        found[where] = tokens + counted[0], nano + counted[1]
    return found


def _left(at: datetime) -> tuple[timedelta, timedelta]:
    """What is left of the day, and of the month."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return day + timedelta(days=1) - at, next_month - at


def reserve(reservation: UsageReservation, now: float) -> ScriptCall[ReachedLimit | None]:
    """Reserve what a job may use. Returns the limit that is reached, else None.

    `now` is in unix seconds. A job counts in the day and month in which it may start.
    """
    due = max(now, reservation.due or 0.0)
    at = datetime.fromtimestamp(due, UTC)
    day_ends_s, month_ends_s = (due - now + left.total_seconds() for left in _left(at))
    args: list[Argument] = [
        reservation.job_id, day_number(at), month_number(at), day_ends_s, month_ends_s,
        SPENDING_TTL_S, reservation.tokens, reservation.cost_nano, reservation.due or 0,
        *("" if limit is None else limit for limit in reservation.limits),
    ]  # fmt: skip
    keys = [redis_keys.spending(reservation.tenant), redis_keys.reserved(reservation.tenant)]
    return ScriptCall(load("usage/reserve"), keys, args, _refused)


def release(tenant: str, job_id: str) -> ScriptCall[int]:
    """Take back what is reserved for a job that does not exist. Returns 1; 0: nothing was."""
    keys = [redis_keys.spending(tenant), redis_keys.reserved(tenant)]
    return ScriptCall(load("usage/release"), keys, [job_id], int)


def check_again(at: float, members: Sequence[bytes]) -> ScriptCall[int]:
    """Have these members of `fleet:reserving` checked again then (unix seconds)."""
    args: list[Argument] = [f"{at:.3f}", *members]
    return ScriptCall(load("usage/check_again"), [redis_keys.RESERVING], args, int)


def _refused(reply: Any) -> ReachedLimit | None:
    number, *rest = reply
    if not number:
        return None
    used, limit, wait_s = rest
    return ReachedLimit(int(number), int(used), int(limit), float(wait_s))
