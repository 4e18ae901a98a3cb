"""`fleet keys`: API keys of tenants."""

from typing import Annotated, Any, Final

import typer

from contract.errors import InvalidRequest
from contract.tenants import USE, IssuedKey, KeyFacts
from contract.wire import encode
from fleet.cli.commands.options import All, Json, Limit, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.key_options import (
    Allow,
    Backends,
    Kept,
    Models,
    SpendDay,
    SpendMonth,
    TokensDay,
    TokensMinute,
    WaitingBytes,
    WaitingJobs,
    WaitingTokens,
    duration_s,
    names,
    permissions_in,
    retention_in,
)
from fleet.cli.tables import Ago, Id
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient

app = typer.Typer(
    help="Create, list, update, rotate and revoke API keys of tenants.", no_args_is_help=True
)

_COLUMNS: Final = (
    "id", "tenant", "may", "only", "weight", "jobs", "tokens", "limits", "name", "created", "used",
    "expires",
)  # fmt: skip


@app.command()
def create(
    *,
    tenant: Annotated[str, typer.Option(help="Tenant whose jobs it creates and sees.")],
    weight: Annotated[float, typer.Option(help="Share of the slots, relative to others.")] = 1.0,
    admin: Annotated[
        bool, typer.Option("--admin", help="May do everything, and sees all jobs.")
    ] = False,
    allow: Allow = None,
    models: Models = None,
    backends: Backends = None,
    retention: Kept = None,
    limit_jobs: WaitingJobs = None,
    limit_tokens: WaitingTokens = None,
    limit_bytes: WaitingBytes = None,
    limit_tokens_minute: TokensMinute = None,
    limit_tokens_day: TokensDay = None,
    limit_spend_day: SpendDay = None,
    limit_spend_month: SpendMonth = None,
    name: Annotated[str, typer.Option(help="Label, as who or what uses it.")] = "",
    expires: Annotated[
        str | None, typer.Option(help="When, as in 90d or 12h.  [default: never]")
    ] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Create a key and print it, only this once. The first key must be an admin's (--admin)."""
    fields = {
        "weight": weight, "admin": admin, "permissions": permissions_in(allow), "name": name,
        "models": names(models), "backends": names(backends), "retention": retention_in(retention),
        "limit_jobs": limit_jobs, "limit_tokens": limit_tokens, "limit_bytes": limit_bytes,
        "limit_tokens_minute": limit_tokens_minute, "limit_tokens_day": limit_tokens_day,
        "limit_spend_day": limit_spend_day, "limit_spend_month": limit_spend_month,
        "expires_in_s": duration_s(expires) if expires else None,
    }  # fmt: skip
    run(_create(tenant, fields, Terminal(json=json), url))


async def _create(tenant: str, fields: dict[str, Any], terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        issued = await fleet.create_key(tenant, **fields)
    _show(issued, terminal)
    return Exit.OK


def _show(issued: IssuedKey, terminal: Terminal) -> None:
    if terminal.json:
        terminal.write_json(encode(issued))
        return
    terminal.write(f"{issued.key.get_secret_value()}\n")
    old = f"; {issued.replaces} expires after the overlap" if issued.replaces else ""
    terminal.message(
        f"the key of {issued.tenant}, shown only once: keep it, and set it as FLEET_API_KEY "
        f"(`fleet keys revoke {issued.id}` revokes it){old}"
    )


@app.command("list")
def list_(*, limit: Limit = None, all_: All = False, json: Json = False, url: Url = None) -> None:
    """List keys, newest first: tenant, limits and rights; never the keys themselves."""
    terminal = Terminal(json=json)
    run(_list(terminal, url, terminal.row_limit(limit, all_=all_)))


async def _list(terminal: Terminal, url: str | None, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = sorted(await fleet.keys(), key=lambda key: -key.created_at)
    terminal.print_rows(found, _COLUMNS, (_row(key) for key in found), most)
    return Exit.OK


def _row(key: KeyFacts) -> tuple[object, ...]:
    return (
        Id(key.id), key.tenant, _may(key), _only(key), f"{key.weight:g}", key.limit_jobs,
        key.limit_tokens, _limits(key), key.name or None, Ago(key.created_at),
        Ago(key.last_used_at), Ago(key.expires_at),
    )  # fmt: skip


def _may(key: KeyFacts) -> str:
    """The permissions in few words, as in `use models:write`."""
    if key.admin:
        return "admin"
    if set(USE) <= set(key.permissions):
        return " ".join(("use", *(name for name in key.permissions if name not in USE)))
    return " ".join(key.permissions) or "nothing"


def _only(key: KeyFacts) -> str | None:
    """The models and backends, if they are limited, as in `qwen* on box`."""
    models = ", ".join(key.models) if key.models else "all models" if key.backends else None
    return f"{models} on {', '.join(key.backends)}" if key.backends else models


def _limits(key: KeyFacts) -> str | None:
    """The other limits, as in `600 tokens a minute, 250 a month`."""
    told = (
        (key.limit_bytes, "waiting bytes"),
        (key.limit_tokens_minute, "tokens a minute"), (key.limit_tokens_day, "tokens a day"),
        (key.limit_spend_day, "a day"), (key.limit_spend_month, "a month"),
    )  # fmt: skip
    return (
        ", ".join(f"{_number(limit)} {words}" for limit, words in told if limit is not None) or None
    )


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


KeyId = Annotated[
    str, typer.Argument(help="Id of the key, the part between its two `_`; or a unique prefix.")
]


@app.command()
def update(
    id: KeyId,
    *,
    weight: Annotated[
        float | None, typer.Option(help="Share of the slots, relative to others.")
    ] = None,
    allow: Allow = None,
    models: Models = None,
    backends: Backends = None,
    retention: Kept = None,
    limit_jobs: WaitingJobs = None,
    limit_tokens: WaitingTokens = None,
    limit_bytes: WaitingBytes = None,
    limit_tokens_minute: TokensMinute = None,
    limit_tokens_day: TokensDay = None,
    limit_spend_day: SpendDay = None,
    limit_spend_month: SpendMonth = None,
    name: Annotated[str | None, typer.Option(help="Label, as who or what uses it.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="When, from now, as in 90d or 12h; `never`.")
    ] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Change what a key gives; what is left out stays. `*` is every model, 0 is no limit."""
    limits = {
        "limit_jobs": limit_jobs, "limit_tokens": limit_tokens, "limit_bytes": limit_bytes,
        "limit_tokens_minute": limit_tokens_minute, "limit_tokens_day": limit_tokens_day,
        "limit_spend_day": limit_spend_day, "limit_spend_month": limit_spend_month,
    }  # fmt: skip
    given: dict[str, Any] = {
        "weight": weight, "permissions": permissions_in(allow), "models": names(models),
        "backends": names(backends), "name": name, "retention": retention_in(retention),
    }  # fmt: skip
    fields = {name: value for name, value in given.items() if value is not None}
    fields |= {name: value or None for name, value in limits.items() if value is not None}
    if expires is not None:
        fields["expires_in_s"] = None if expires == "never" else duration_s(expires)
    run(_update(id, fields, Terminal(json=json), url))


async def _update(key_id: str, fields: dict[str, Any], terminal: Terminal, url: str | None) -> Exit:
    if not fields:
        raise InvalidRequest("nothing to change: give an option, as in --allow use,models:write")
    async with AsyncClient(url) as fleet:
        changed = await fleet.update_key(key_id, **fields)
    if terminal.json:
        terminal.write_json(encode(changed))
    else:
        only = f", only {_only(changed)}" if _only(changed) else ""
        terminal.message(f"the key {changed.id} of {changed.tenant} may {_may(changed)}{only}")
    return Exit.OK


@app.command()
def rotate(
    id: KeyId,
    *,
    overlap: Annotated[
        str, typer.Option(help="How long the old key stays valid, as in 24h; 0s: not at all.")
    ] = "1d",
    expires: Annotated[
        str | None,
        typer.Option(help="When the new one expires.  [default: as long as the old one had]"),
    ] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Print a new key with the same rights, only this once; the old one expires after --overlap."""
    expires_in_s = duration_s(expires) if expires else None
    run(_rotate(id, duration_s(overlap), expires_in_s, Terminal(json=json), url))


async def _rotate(
    key_id: str, overlap_s: float, expires_in_s: float | None, terminal: Terminal, url: str | None
) -> Exit:
    async with AsyncClient(url) as fleet:
        issued = await fleet.rotate_key(key_id, overlap_s=overlap_s, expires_in_s=expires_in_s)
    _show(issued, terminal)
    return Exit.OK


@app.command()
def revoke(
    id: KeyId,
    *,
    json: Json = False,
    url: Url = None,
) -> None:
    """Revoke a key: within seconds it is rejected, and its open streams end."""
    run(_revoke(id, Terminal(json=json), url))


async def _revoke(key_id: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        gone = await fleet.revoke_key(key_id)
    if terminal.json:
        terminal.write_json(encode(gone))
    else:
        terminal.message(f"the key {gone.id} of {gone.tenant} is revoked")
    return Exit.OK
