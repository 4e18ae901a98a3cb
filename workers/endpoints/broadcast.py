"""Jobs that change what servers hold, run at every endpoint of a backend, one after another.

Endpoints can replace each other only while they hold the same models, so these kinds go to all of
them. An error at one ends the attempt. Kinds that pull, load, unload or list skip an endpoint that
is known to be down, because an endpoint without a model gets no job for it. Kinds that delete, copy
or create must succeed everywhere. A delete that finds the model at some endpoint is a success.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from contract.errors import ModelMissing
from contract.events import Details, Done, Phase, Progress
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    LoadRequest,
    PullRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.roster import ModelReport
from workers.backends.protocols import Backend, Stream

EVERYWHERE: Final = frozenset(
    {"pull", "create", "copy", "delete", "load", "unload", "running", "list"}
)
"""Kinds of jobs that go to every endpoint of a backend that has several."""

Method = Callable[[Any], Stream[Any]]


class Broadcast:
    """All endpoints as one backend that can only be managed."""

    def __init__(self, name: str, adapters: Mapping[str, Backend], up: Sequence[str]) -> None:
        """Take the adapters by label, and the labels that are not known to be down."""
        self.name = name
        self._all = dict(adapters)
        self._up = {label: adapters[label] for label in up} or self._all

    async def check(self) -> str | None:
        """Return the version of the first endpoint."""
        return await next(iter(self._up.values())).check()

    async def models(self) -> Sequence[ModelReport]:
        """Return the models of all endpoints, each once."""
        return merged([await adapter.models() for adapter in self._up.values()])

    async def aclose(self) -> None:
        """Do nothing: the endpoint pool closes the adapters."""

    async def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """Pull at one after another; the totals add up."""
        total = completed = 0
        for number, (label, adapter) in enumerate(self._up.items(), start=1):
            before_total, before_completed = total, completed
            async with aclosing(_any(adapter).pull(request)) as events:
                async for event in events:
                    if not isinstance(event, Progress):
                        continue
                    total = max(total, before_total + (event.overall_total_bytes or 0))
                    completed = max(
                        completed, before_completed + (event.overall_completed_bytes or 0)
                    )
                    yield event.model_copy(
                        update={
                            "status": f"{event.status} ({number} of {len(self._up)}: {label})",
                            "overall_total_bytes": total or None,
                            "overall_completed_bytes": completed if total else None,
                        }
                    )
        yield Done()

    async def show(self, request: ShowRequest) -> Stream[Details | Done]:
        """Show the model at the first endpoint."""
        async with aclosing(_any(next(iter(self._up.values()))).show(request)) as events:
            async for event in events:
                yield event

    def create(self, request: CreateRequest) -> Stream[Progress | Done]:
        """Create the model at every endpoint."""
        return self._each(self._all, lambda adapter: adapter.create(request))

    def copy(self, request: CopyRequest) -> Stream[Done]:
        """Copy the model at every endpoint."""
        return self._each(self._all, lambda adapter: adapter.copy(request))

    async def delete(self, request: DeleteRequest) -> Stream[Done]:
        """Delete the model wherever it is; raises ModelMissing if no endpoint has it."""
        missing: ModelMissing | None = None
        found = False
        for adapter in self._all.values():
            try:
                async with aclosing(_any(adapter).delete(request)) as events:
                    async for _ in events:
                        found = True
            except ModelMissing as error:
                missing = error
        if missing is not None and not found:
            raise missing
        yield Done()

    async def running(self) -> Stream[Details | Done]:
        """List the models in memory, each with its endpoint."""
        models: list[dict[str, Any]] = []
        for label, adapter in self._up.items():
            async with aclosing(_any(adapter).running()) as events:
                async for event in events:
                    found = event.details.get("models", ()) if isinstance(event, Details) else ()
                    models += [{**model, "endpoint": label} for model in found]
        yield Details(details={"models": models})
        yield Done()

    def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """Load the model at every endpoint that is up."""
        return self._each(self._up, lambda adapter: adapter.load(request))

    def unload(self, request: UnloadRequest) -> Stream[Done]:
        """Unload the model at every endpoint that is up."""
        return self._each(self._up, lambda adapter: adapter.unload(request))

    async def _each(self, adapters: Mapping[str, Backend], call: Method) -> Stream[Any]:
        """Yield the events of each adapter, with one `done` for all."""
        for adapter in adapters.values():
            async with aclosing(call(adapter)) as events:
                async for event in events:
                    if not isinstance(event, Done):
                        yield event
        yield Done()


def merged(lists: Sequence[Sequence[ModelReport]]) -> tuple[ModelReport, ...]:
    """Return every model once: as a warm endpoint reports it, else as the first one does."""
    found: dict[str, ModelReport] = {}
    for report in (report for reports in lists for report in reports):
        there = found.setdefault(report.name, report)
        if report.warm and not there.warm:
            found[report.name] = report
    return tuple(found.values())


def _any(adapter: Backend) -> Any:
    """Return the adapter untyped: all endpoints are of one type, which has the method."""
    return adapter
