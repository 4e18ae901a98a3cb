"""Jobs that change what servers hold, done at every endpoint of a backend, one after another.

Endpoints are as good as each other only while they hold the same, so these kinds go to all of them.
An error at one ends the attempt. What fetches a model or moves it in and out of memory, and what
only asks, leaves out an endpoint that is known to be down: whoever lacks a model gets no job for
it. What deletes, copies or creates must be done everywhere, or it failed. A delete that finds the
model at some of them is a success.
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

Ask = Callable[[Any], Stream[Any]]


class Broadcast:
    """All endpoints as one backend that can only be managed."""

    def __init__(self, name: str, adapters: Mapping[str, Backend], up: Sequence[str]) -> None:
        """`adapters` are by address; `up` are the addresses of which nothing bad is known."""
        self.name = name
        self._all = dict(adapters)
        self._up = {address: adapters[address] for address in up} or self._all

    async def check(self) -> str | None:
        """The first one's version."""
        return await next(iter(self._up.values())).check()

    async def models(self) -> Sequence[ModelReport]:
        """What any of them has."""
        return merged([await adapter.models() for adapter in self._up.values()])

    async def aclose(self) -> None:
        """Whoever made the adapters closes them."""

    async def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """Fetch to one after another; the totals grow by those of the next."""
        total = completed = 0
        for number, (address, adapter) in enumerate(self._up.items(), start=1):
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
                            "status": f"{event.status} ({number} of {len(self._up)}: {address})",
                            "overall_total_bytes": total or None,
                            "overall_completed_bytes": completed if total else None,
                        }
                    )
        yield Done()

    async def show(self, request: ShowRequest) -> Stream[Details | Done]:
        """What the first one says."""
        async with aclosing(_any(next(iter(self._up.values()))).show(request)) as events:
            async for event in events:
                yield event

    def create(self, request: CreateRequest) -> Stream[Progress | Done]:
        """Make it everywhere."""
        return self._each(self._all, lambda adapter: adapter.create(request))

    def copy(self, request: CopyRequest) -> Stream[Done]:
        """Copy it everywhere."""
        return self._each(self._all, lambda adapter: adapter.copy(request))

    async def delete(self, request: DeleteRequest) -> Stream[Done]:
        """Delete it wherever it is; raises ModelMissing if it is nowhere."""
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
        """What runs at any of them, and where."""
        models: list[dict[str, Any]] = []
        for address, adapter in self._up.items():
            async with aclosing(_any(adapter).running()) as events:
                async for event in events:
                    told = event.details.get("models", ()) if isinstance(event, Details) else ()
                    models += [{**model, "endpoint": address} for model in told]
        yield Details(details={"models": models})
        yield Done()

    def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """Bring it into the memory of each."""
        return self._each(self._up, lambda adapter: adapter.load(request))

    def unload(self, request: UnloadRequest) -> Stream[Done]:
        """Take it out of the memory of each."""
        return self._each(self._up, lambda adapter: adapter.unload(request))

    async def _each(self, adapters: Mapping[str, Backend], ask: Ask) -> Stream[Any]:
        """Every event but the `done` of each, and one for all."""
        for adapter in adapters.values():
            async with aclosing(ask(adapter)) as events:
                async for event in events:
                    if not isinstance(event, Done):
                        yield event
        yield Done()


def merged(lists: Sequence[Sequence[ModelReport]]) -> tuple[ModelReport, ...]:
    """Every model once: warm where any endpoint has it so, else as the first one tells it."""
    found: dict[str, ModelReport] = {}
    for report in (report for reports in lists for report in reports):
        there = found.setdefault(report.name, report)
        if report.warm and not there.warm:
            found[report.name] = report
    return tuple(found.values())


def _any(adapter: Backend) -> Any:
    """The adapter, which has the method: all endpoints are of one type, and it takes the kind."""
    return adapter
