"""`fleet models`, `queues`, `workers`: what the fleet is made of just now."""

from datetime import UTC, datetime

from contract.roster import QueueView
from fleet.aio import AsyncClient
from fleet.commands.options import Backend, Json, Url
from fleet.exits import Exit, run
from fleet.reports import BackendView
from fleet.terminal import Terminal


def show_backends(terminal: Terminal, found: tuple[BackendView, ...]) -> None:
    """A row a backend."""
    columns = ("backend", "type", "healthy", "address", "can", "models", "workers")
    terminal.rows(
        found,
        columns,
        (
            (
                each.name,
                each.type,
                _health(each),
                " ".join(
                    f"{address} (down)" if address in each.endpoints_down else address
                    for address in each.endpoints
                ),
                " ".join(each.capabilities),
                len(each.models),
                len(each.workers),
            )
            for each in found
        ),
    )


def _health(backend: BackendView) -> str:
    if backend.circuit_open_until is not None:
        until = datetime.fromtimestamp(backend.circuit_open_until, UTC)
        return f"no: circuit open until {until:%H:%M:%S} UTC; {backend.error or 'it failed'}"
    return "yes" if backend.healthy else f"no: {backend.error or 'no reason given'}"


def models(*, backend: Backend = None, json: Json = False, url: Url = None) -> None:
    """List models: whose they are, what they can do, whether they are in memory."""
    run(_models(backend, Terminal(json=json), url))


async def _models(backend: str | None, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = [each for each in await fleet.models() if backend in {None, each.backend}]
    columns = ("model", "backend", "traits", "warm", "context", "dimension", "size MB")
    terminal.rows(
        found,
        columns,
        (
            (
                each.name,
                each.backend,
                " ".join(each.traits) or None,
                each.warm,
                each.context_length,
                each.dimension,
                each.size_bytes and round(each.size_bytes / 1e6),
            )
            for each in found
        ),
    )
    return Exit.OK


def queues(*, json: Json = False, url: Url = None) -> None:
    """List queues: how many wait, for how long, how many run."""
    run(_queues(Terminal(json=json), url))


async def _queues(terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        show_queues(terminal, await fleet.queues())
    return Exit.OK


def show_queues(terminal: Terminal, found: tuple[QueueView, ...]) -> None:
    """A row a queue."""
    columns = ("queue", "waiting", "oldest s", "running", "slots", "workers", "ended/s")
    terminal.rows(
        found,
        columns,
        (
            (
                each.name,
                each.depth,
                each.oldest_s,
                each.in_flight,
                each.slots,
                each.workers,
                each.drain_per_s and f"{each.drain_per_s:.3g}",
            )
            for each in found
        ),
    )


def workers(*, json: Json = False, url: Url = None) -> None:
    """List live workers: where they run, what they do."""
    run(_workers(Terminal(json=json), url))


async def _workers(terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = await fleet.workers()
    columns = ("worker", "host", "pid", "backends", "running", "slots", "draining")
    terminal.rows(
        found,
        columns,
        (
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
        ),
    )
    return Exit.OK
