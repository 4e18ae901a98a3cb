"""A probe of one endpoint: its health, its models with the configuration's facts, its slots."""

import asyncio
from collections.abc import Iterable, Mapping
from itertools import islice
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
from workers.backends.protocols import NamesSlots, ReportsSlots
from workers.endpoints.endpoints import Endpoint

CHECK_S: Final = 5.0
"""Seconds for the health check. Less than the client's own bounds (CONNECT_S and QUICK_S in
workers/backends/http/client.py), so that a server which accepts and never answers is found here."""
MODELS_S: Final = 8.0
"""Seconds for models and slots once the server has answered: a long list is no outage."""
_LONGEST_NAME: Final = 256
"""Characters of a model's name in a request (`ModelName` of contract/models.py)."""
_MOST_MODELS: Final = 10_000
"""Of one server; hosted ones list some hundreds."""


async def probe(endpoint: Endpoint, config: BackendConfig) -> None:
    """Probe an endpoint: update its version, models, slots, error and circuit. Raises nothing."""
    try:
        await _check(endpoint)
        endpoint.probe_succeeded()
        await _list(endpoint, config)
    except BackendUnreachable as failure:
        endpoint.error = failure.message
        endpoint.breaker.probe_failed(failure)
    except BackendError as failure:
        endpoint.error = failure.message
        if isinstance(failure, ModelLoading):
            endpoint.breaker.probe_failed(failure)
        else:
            endpoint.probe_succeeded()
    else:
        endpoint.error = None


async def _check(endpoint: Endpoint) -> None:
    try:
        async with asyncio.timeout(CHECK_S):
            endpoint.version = await endpoint.adapter.check()
    except TimeoutError:
        raise BackendUnreachable(f"it did not answer within {CHECK_S:g} s") from None


async def _list(endpoint: Endpoint, config: BackendConfig) -> None:
    adapter = endpoint.adapter
    try:
        async with asyncio.timeout(MODELS_S):
            endpoint.models = declared(await adapter.models(), config)
            if endpoint.prompt_slots is not None and isinstance(adapter, NamesSlots):
                endpoint.prompt_slots.count = adapter.prompt_slots
            queue = queue_name(config.name, "chat")
            if isinstance(adapter, ReportsSlots) and config.slots_for("chat") is None:
                slots = await adapter.slots()
                if slots and queue in endpoint.slots:
                    endpoint.slots[queue] = slots
    except TimeoutError:
        raise BackendStalled(f"it did not list its models within {MODELS_S:g} s") from None


def declared(reports: Iterable[ModelReport], config: BackendConfig) -> tuple[ModelReport, ...]:
    """Return the server's reports with the configuration's facts over them.

    Names that no request can have are left out, and what is beyond _MOST_MODELS: the list is in
    every report of the worker. Models that only the configuration names are appended. A declared
    trait is removed from what the model lacks, and the other way round.
    """
    usable = (report for report in reports if 0 < len(report.name) <= _LONGEST_NAME)
    listed = {report.name: report for report in islice(usable, _MOST_MODELS)}
    hidden = {name: ModelReport(name=name) for name in config.models if find(listed, name) is None}
    return tuple(_merged(report, config.models) for report in (listed | hidden).values())


def _merged(report: ModelReport, models: Mapping[str, DeclaredModel]) -> ModelReport:
    found = find(models, report.name)
    if found is None:
        return report
    facts = found[1]
    update: dict[str, Any] = facts.model_dump(exclude_none=True, exclude={"prompts"})
    if facts.traits is not None and facts.lacks is None:
        update["lacks"] = tuple(trait for trait in report.lacks if trait not in facts.traits)
    if facts.lacks is not None and facts.traits is None:
        update["traits"] = tuple(trait for trait in report.traits if trait not in facts.lacks)
    return report.model_copy(update=update)
