"""`fleet models`, `workers`: lists from the roster of live workers."""

from datetime import UTC, datetime

from fleet.cli.commands.options import All, Backend, Json, Limit, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Wrapped
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.roster import BackendInfo


def show_backends(
    terminal: Terminal, found: tuple[BackendInfo, ...], most: int | None = None
) -> None:
    """Print a table of backends, a row each; the first `most` of them."""
    columns = ("backend", "type", "address", "models", "workers", "can", Wrapped("healthy"))
    rows = (
        (
            each.name,
            each.type,
            " ".join(
                f"{address} (down)" if address in each.endpoints_down else address
                for address in each.endpoints
            ),
            len(each.models),
            len(each.workers),
            " ".join(each.capabilities),
            _health(each),
        )
        for each in found
    )
    terminal.print_rows(found, columns, rows, most)


def _health(backend: BackendInfo) -> str:
    if backend.circuit_open_until is not None:
        until = datetime.fromtimestamp(backend.circuit_open_until, UTC)
        return f"no: circuit open until {until:%H:%M:%S} UTC; {backend.error or 'it failed'}"
    return "yes" if backend.healthy else f"no: {backend.error or 'no reason given'}"


def models(
    *,
    backend: Backend = None,
    limit: Limit = None,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List models: backend, capabilities, whether they are in memory."""
    terminal = Terminal(json=json)
    run(_models(backend, terminal, url, terminal.row_limit(limit, all_=all_)))


async def _models(
    backend: str | None, terminal: Terminal, url: str | None, most: int | None
) -> Exit:
    async with AsyncClient(url) as fleet:
        found = [each for each in await fleet.models() if backend in {None, each.backend}]
    columns = (
        Wrapped("model"), "backend", "warm", "context", "dimension", "size MB", "traits",
    )  # fmt: skip
    rows = (
        (
            each.name,
            each.backend,
            each.warm,
            each.context_length,
            each.dimension,
            each.size_bytes and round(each.size_bytes / 1e6),
            " ".join(each.traits) or None,
        )
        for each in found
    )
    terminal.print_rows(found, columns, rows, most)
    return Exit.OK


def workers(*, limit: Limit = None, all_: All = False, json: Json = False, url: Url = None) -> None:
    """List live workers: backends, running jobs; for admins also host and process."""
    terminal = Terminal(json=json)
    run(_workers(terminal, url, terminal.row_limit(limit, all_=all_)))


async def _workers(terminal: Terminal, url: str | None, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = await fleet.workers()
    columns = (Wrapped("worker"), "host", "pid", "backends", "running", "slots", "draining")
    rows = (
        (
            each.name,
            each.host,
            each.pid,
            " ".join(backend.name for backend in each.backends),
            sum(queue.in_flight for queue in each.queues),
            sum(queue.slots for queue in each.queues),
            each.draining,
        )
        for each in found
    )
    terminal.print_rows(found, columns, rows, most)
    return Exit.OK
