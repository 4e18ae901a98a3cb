"""Usage over HTTP: what tenants used, by day, tenant, backend, model and kind; as JSON or a file.

A tenant sees its own usage, an admin that of all tenants.
"""

import base64
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic_core import from_json

from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Caller
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import json_response
from api_shim.native.usage_file import csv_file, parquet_file
from contract.errors import InvalidRequest, NotAllowed
from contract.json_lines import json_line
from contract.tenants import Tenant, UsageLimits
from contract.usage import GROUPS, GroupBy, LimitsPage, UsageCounts, UsagePage, UsageRow, Used
from relay.usage.ledger import Names, UsageQuery

router = APIRouter(prefix="/api/v1", tags=["usage"])

_LONGEST_PAGE: Final = 1000
_DAYS: Final = 30
_MOST_DAYS: Final = 3660
_MEDIA_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}

Format = Literal["json", "csv", "parquet"]


def _groups(
    group_by: Annotated[
        str,
        Query(
            description="Which of day, tenant, backend, model and kind tell rows apart, with "
            "commas between; empty: one row.",
            max_length=80,
            examples=["day,model"],
        ),
    ] = "day,tenant,model",
) -> tuple[GroupBy, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in group_by.split(",") if name.strip()))
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise InvalidRequest(
            f"group_by: there is no {unknown[0][:40]!r} in usage: choose from {', '.join(GROUPS)}"
        )
    return tuple(name for name in GROUPS if name in names)


def _question(
    dependencies: Injected,
    caller: Caller,
    *,
    groups: Annotated[tuple[GroupBy, ...], Depends(_groups)],
    from_: Annotated[
        date | None,
        Query(alias="from", description="First day (UTC).  Default: 30 days with `to`."),
    ] = None,
    to: Annotated[
        date | None, Query(description="Last day (UTC), included.  Default: today.")
    ] = None,
    tenant: Annotated[str | None, Query(description="For admins: of this tenant.")] = None,
    backend: str | None = None,
    model: str | None = None,
    kind: str | None = None,
) -> UsageQuery:
    last = to or datetime.fromtimestamp(dependencies.connection.now(), UTC).date()
    first = from_ or _days_before(last, _DAYS - 1)
    days = (last - first).days + 1
    if not 1 <= days <= _MOST_DAYS:
        raise InvalidRequest(
            f"from, to: {first} to {last} are {days} days: ask for 1 to {_MOST_DAYS}, from the "
            "earlier day to the later one"
        )
    return UsageQuery(first, last, groups, _visible(caller, tenant), model, backend, kind)


def _days_before(day: date, count: int) -> date:
    return day - timedelta(days=min(count, day.toordinal() - 1))


def _visible(caller: Tenant, wanted: str | None) -> str | None:
    """The tenant whose usage is read, None: all; raises NotAllowed."""
    if caller.admin:
        return wanted
    if wanted not in {None, caller.name}:
        raise NotAllowed("tenant: this key sees the usage of its own tenant: leave `tenant` out.")
    return caller.name


@router.get(
    "/usage",
    operation_id="get_usage",
    response_model=UsagePage,
    responses={
        200: {
            "description": "Rows ordered by their groups; as a file without pages, with a column "
            "for each group and number.",
            "content": {"text/csv": {}, "application/vnd.apache.parquet": {}},
        },
        **documented(400, 403, 422, 503),
    },
)
async def usage(
    dependencies: Injected,
    query: Annotated[UsageQuery, Depends(_question)],
    format: Annotated[
        Format, Query(description="`parquet` needs pyarrow where the shim runs.")
    ] = "json",
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 100,
    after: Annotated[str | None, Query(description="`next` of the previous page.")] = None,
) -> Response:
    """Get tokens, requests, images, seconds and cost, of the jobs that have ended.

    What has ended a moment ago is included. Estimated tokens are said to be so.
    """
    cursor = _cursor(after, len(query.group_by))
    found = await dependencies.ledger.read(query)
    if format == "json":
        currency = dependencies.settings.currency
        return json_response(_page(found, query, currency, cursor=cursor, limit=limit))
    rows = [_row(query.group_by, names, counts) for names, counts in found.items()]
    render = csv_file if format == "csv" else parquet_file
    name = f"usage-{query.first_day}-{query.last_day}.{format}"
    headers = {
        "Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"',
    }  # fmt: skip
    return Response(render(rows), 200, headers, media_type=_MEDIA_TYPES[format])


@router.get(
    "/usage/limits",
    operation_id="get_usage_limits",
    response_model=LimitsPage,
    responses=documented(403, 422, 503),
)
async def limits(
    dependencies: Injected,
    caller: Caller,
    tenant: Annotated[str | None, Query(description="For admins: only this tenant.")] = None,
) -> Response:
    """Get the limits of tokens and money, and how full they are.

    A tenant sees its own, by the key that it calls with; an admin those of all tenants with keys:
    the smallest of each tenant's keys.
    """
    wanted = _visible(caller, tenant)
    tenants = [caller] if not caller.admin else await _tenants(dependencies, caller)
    chosen = [each for each in tenants if wanted is None or each.name == wanted]
    found = await dependencies.limits.view(chosen)
    return json_response(LimitsPage(currency=dependencies.settings.currency, tenants=found))


async def _tenants(dependencies: Dependencies, caller: Tenant) -> list[Tenant]:
    """Every tenant with a key, with the smallest limits of its keys; by name."""
    found: dict[str, Tenant] = {}
    for key in await dependencies.authenticator.keys():
        other = found.get(key.tenant)
        found[key.tenant] = key.owner if other is None else _smaller(other, key.owner)
    found.setdefault(caller.name, caller)
    return [found[name] for name in sorted(found)]


def _smaller(one: Tenant, other: Tenant) -> Tenant:
    limits = {
        name: min(
            (value for value in (getattr(one, name), getattr(other, name)) if value is not None),
            default=None,
        )
        for name in UsageLimits.model_fields
    }
    return one.model_copy(update=limits)


def _page(
    found: dict[Names, UsageCounts],
    query: UsageQuery,
    currency: str,
    *,
    cursor: Names | None,
    limit: int,
) -> UsagePage:
    total = UsageCounts()
    for counts in found.values():
        total = total.plus(counts)
    after = (each for each in found.items() if cursor is None or each[0] > cursor)
    rows = list(islice(after, limit + 1))
    is_last = len(rows) <= limit
    return UsagePage(
        first_day=f"{query.first_day}",
        last_day=f"{query.last_day}",
        group_by=tuple(query.group_by),
        currency=currency,
        total=Used.of(total),
        rows=tuple(_row(query.group_by, names, counts) for names, counts in rows[:limit]),
        next=None if is_last else _text(rows[limit - 1][0]),
    )


def _row(group_by: Sequence[GroupBy], names: Names, counts: UsageCounts) -> UsageRow:
    return UsageRow.group(dict(zip(group_by, names, strict=True)), counts)


def _text(names: Names) -> str:
    return base64.urlsafe_b64encode(json_line(list(names)).strip()).decode()


def _cursor(after: str | None, length: int) -> Names | None:
    """The names of the last row of the page before; raises Refusal."""
    if after is None:
        return None
    try:
        names: Any = from_json(base64.urlsafe_b64decode(after))
    except ValueError:
        names = None
    if not (isinstance(names, list) and len(names) == length and all(map(_is_text, names))):
        raise Refusal(
            "invalid_cursor",
            f"after={after[:40]!r} is no cursor for this `group_by`: use `next` of a page.",
            status=400,
        )
    return tuple(names)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
