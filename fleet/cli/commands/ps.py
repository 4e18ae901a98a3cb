"""`fleet ps`: the models that backends have in memory."""

import asyncio
from datetime import datetime
from typing import Any

from contract.errors import FleetError
from contract.models import RunningRequest
from contract.wire import WireModel
from fleet.cli.commands.options import All, Backend, Json, Limit, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Ago, Wrapped
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.roster import BackendInfo

_TIMEOUT_S = 10.0


class Loaded(WireModel):
    """A model in memory."""

    backend: str
    model: str
    details: dict[str, Any]
    """Details as the backend reports them."""


def ps(
    *,
    backend: Backend = None,
    limit: Limit = None,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List models in memory, as backends report them, or as the roster has them."""
    terminal = Terminal(json=json)
    run(_ps(backend, terminal, url, terminal.row_limit(limit, all_=all_)))


async def _ps(backend: str | None, terminal: Terminal, url: str | None, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:
        known = [each for each in await fleet.backends() if backend in {None, each.name}]
        found = await asyncio.gather(*(_loaded(fleet, each, terminal) for each in known))
    rows = [each for group in found for each in group]
    terminal.print_rows(
        rows,
        (Wrapped("model"), "backend", "size MB", "in VRAM MB", "until", "state"),
        ((each.model, each.backend, *_cells(each.details)) for each in rows),
        most,
    )
    return Exit.OK


async def _loaded(fleet: AsyncClient, backend: BackendInfo, terminal: Terminal) -> list[Loaded]:
    if "running" in backend.capabilities and backend.healthy:
        try:
            return await _running(fleet, backend.name)
        except FleetError as error:
            terminal.message(f"{backend.name}: {error.message}; showing its last report")
    models = [each for each in await fleet.models() if each.backend == backend.name and each.warm]
    return [
        Loaded(
            backend=each.backend,
            model=each.name,
            details={"size": each.size_bytes} if each.size_bytes else {},
        )
        for each in models
    ]


async def _running(fleet: AsyncClient, backend: str) -> list[Loaded]:
    job = await fleet.enqueue(RunningRequest(backend=backend, deadline_s=_TIMEOUT_S))
    details = (await job.result(_TIMEOUT_S)).details or {}
    return [
        Loaded(backend=backend, model=str(each.get("name") or each.get("model")), details=each)
        for each in details.get("models", ())
    ]


def _cells(details: dict[str, Any]) -> tuple[object, ...]:
    size, vram = details.get("size"), details.get("size_vram")
    return (
        size and round(size / 1e6),
        vram and round(vram / 1e6),
        _time(details.get("expires_at")),
        details.get("state"),
    )


def _time(reported: object) -> object:
    """A reported ISO 8601 time as a table cell; any other value unchanged."""
    try:
        return Ago(datetime.fromisoformat(str(reported)).timestamp()) if reported else None
    except (ValueError, OverflowError):
        return reported
