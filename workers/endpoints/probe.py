"""A look at one endpoint of a backend: is it up, which models has it, how many slots."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from contract.errors import (
    BackendError,
    BackendStalled,
    BackendUnreachable,
    ModelLoading,
)
from contract.model_names import find
from contract.redis_keys import queue_name
from contract.roster import ModelReport
from workers.backends.declarations import DeclaredModel
from workers.backends.dsn import BackendConfig
from workers.backends.protocols import ReportsSlots
from workers.endpoints.endpoints import Endpoint


def declared(reports: Iterable[ModelReport], config: BackendConfig) -> tuple[ModelReport, ...]:
    """The reports with the configuration's facts; models that the server hides come behind.

    A declared fact wins. A trait that is declared is no longer among what the model lacks, and
    the other way round.
    """
    told = {report.name: report for report in reports}
    hidden = {name: ModelReport(name=name) for name in config.models if find(told, name) is None}
    return tuple(_merged(report, config.models) for report in (told | hidden).values())


def _merged(report: ModelReport, models: Mapping[str, DeclaredModel]) -> ModelReport:
    found = find(models, report.name)
    if found is None:
        return report
    facts = found[1]
    update: dict[str, Any] = facts.model_dump(exclude_none=True)
    if facts.traits is not None and facts.lacks is None:
        update["lacks"] = tuple(trait for trait in report.lacks if trait not in facts.traits)
    if facts.lacks is not None and facts.traits is None:
        update["traits"] = tuple(trait for trait in report.traits if trait not in facts.lacks)
    return report.model_copy(update=update)


CHECK_S: Final = 5.0
"""For the answer to "are you there?". Less than the client's own bounds
(workers/backends/http/client.py: CONNECT_S,
QUICK_S), so that it is this one that ends the wait for a server that accepts and never answers."""
MODELS_S: Final = 8.0
"""For its models and slots, once it said that it is there: a long list is no outage."""


async def look(server: Endpoint, config: BackendConfig) -> None:
    """Write down what is seen, and let the circuit know."""
    try:
        await _check(server)
        server.found_well()
        await _list(server, config)
    except BackendUnreachable as failure:
        server.error = failure.message
        server.breaker.found_broken(failure)
    except BackendError as failure:
        server.error = failure.message
        if isinstance(failure, ModelLoading):
            server.breaker.found_broken(failure)
        else:
            server.found_well()
    else:
        server.error = None


async def _check(server: Endpoint) -> None:
    try:
        async with asyncio.timeout(CHECK_S):
            server.version = await server.adapter.check()
    except TimeoutError:
        raise BackendUnreachable(f"it did not answer within {CHECK_S:g} s") from None


async def _list(server: Endpoint, config: BackendConfig) -> None:
    adapter = server.adapter
    try:
        async with asyncio.timeout(MODELS_S):
            server.models = declared(await adapter.models(), config)
            queue = queue_name(config.name, "chat")
            if isinstance(adapter, ReportsSlots) and config.slots_for("chat") is None:
                told = await adapter.slots()
                if told and queue in server.slots:
                    server.slots[queue] = told
    except TimeoutError:
        raise BackendStalled(f"it did not tell its models within {MODELS_S:g} s") from None
