"""The endpoints of one backend: which of them takes the next job.

A backend is a type and one or more addresses that are as good as each other. A job goes to one that
works (its circuit lets it through), has a slot and the model, and did not just fail the same job;
among these one that has the model in memory, then the one with the fewest jobs. All of an answer
comes from there. When it breaks off, the job's next attempt chooses anew: nothing moves in the
middle of a stream. Kinds that change what a server holds go to every endpoint (`everywhere.py`).
One address is the same, with nothing to choose.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from contract.backend_errors import BackendError, NotSupported
from contract.embeddings import EmbedRequest
from contract.events import Done, Phase, Vectors
from contract.model_names import is_same, untagged
from contract.names import kind_of
from contract.roster import ModelReport
from workers.backends.breaker import Breaker, Passage
from workers.backends.everywhere import EVERYWHERE, Everywhere
from workers.backends.protocols import Backend, Stream
from workers.packing.packer import Packer

_REMEMBERED: Final = 1000
"""Jobs of which is known where they failed."""


class Server:
    """One endpoint: its adapter, what was seen there last, what runs there now."""

    def __init__(
        self, adapter: Backend, address: str, breaker: Breaker, slots: Mapping[str, int]
    ) -> None:
        """Nothing seen, nothing running; `slots` are by queue."""
        self.adapter = adapter
        self.address = address
        self.breaker = breaker
        self.slots = dict(slots)
        self.taken: Counter[str] = Counter()
        self.error: str | None = "not checked yet"
        self.version: str | None = None
        self.models: tuple[ModelReport, ...] = ()
        self.packer: Packer | None = None
        """Who runs its embed jobs, if not the adapter itself."""

    @property
    def in_flight(self) -> int:
        """Jobs of this worker that run there, of all its queues."""
        return self.taken.total()

    def takes(self, queue: str) -> bool:
        """Whether one more job of that queue fits."""
        if kind_of(queue) == "embed" and self.packer is not None and not self.packer.has_room:
            return False
        return self.breaker.admits and self.taken[queue] < self.slots.get(queue, 0)

    def lacks(self, model: str | None) -> bool:
        """Whether it told its models, and this is none of them."""
        names = {untagged(report.name) for report in self.models}
        return bool(names) and model is not None and untagged(model) not in names

    def is_warm(self, model: str | None) -> bool:
        """Whether it said that it has the model in memory."""
        return model is not None and any(
            report.warm and is_same(report.name, model) for report in self.models
        )


class Seat:
    """A job's place at one of the endpoints: held from before its claim to its end."""

    def __init__(self, servers: "Servers", queue: str, server: Server) -> None:
        """Made by `Servers.seat`, where there was room."""
        self._servers = servers
        self._queue = queue
        self._job_id = ""
        self._is_everywhere = len(servers.all) > 1 and kind_of(queue) in EVERYWHERE
        self._server = server
        self._passage = self._enter()

    @property
    def adapter(self) -> Backend:
        """What runs the job."""
        if self._is_everywhere:
            return self._servers.everywhere
        return self._server.adapter

    @property
    def packs(self) -> bool:
        """Whether `embed` runs the job in place of the adapter."""
        return self._packer is not None

    def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """The vectors of the job, whose texts share requests with others'; see packer.py."""
        if self._packer is None:
            raise NotSupported(f"backend {self._servers.name} packs no texts")
        self._arrive()
        return self._packer.embed(request)

    def move(self, job_id: str, model: str | None) -> str | None:
        """Take the endpoint that is best for the job that was claimed.

        Returns what its log should say: the address, if there are several.
        """
        self._job_id = job_id
        failed_at = self._servers.failed_at.get(job_id)
        best = self._servers.best(self._queue, model, failed_at, held=self._server)
        if best is not None and best is not self._server:
            self.leave()
            self._server = best
            self._passage = self._enter()
        if self._is_everywhere:
            return ", ".join(server.address for server in self._servers.all)
        return self._server.address if len(self._servers.all) > 1 else None

    def answered(self) -> None:
        """The backend began to answer."""
        if not self._is_everywhere:
            self._passage.answered()

    def broke(self, error: BackendError) -> None:
        """The backend failed the job: its next attempt goes to another endpoint, if one is free."""
        if self._is_everywhere:
            return
        if error.is_echo:
            self._passage.left()
        else:
            self._passage.broke(error)
        self._servers.failed_at[self._job_id] = self._server.address
        while len(self._servers.failed_at) > _REMEMBERED:
            self._servers.failed_at.popitem(last=False)

    def leave(self) -> None:
        """Give the place back."""
        self._arrive()
        self._server.taken[self._queue] -= 1
        self._passage.left()

    def _enter(self) -> Passage:
        self._server.taken[self._queue] += 1
        self._packer = self._server.packer if kind_of(self._queue) == "embed" else None
        if self._packer is not None:
            self._packer.expect(1)
        self._is_expected = True
        return self._server.breaker.enter()

    def _arrive(self) -> None:
        """The job is with the packer, or will not come."""
        if self._packer is not None and self._is_expected:
            self._packer.expect(-1)
        self._is_expected = False


class Servers:
    """All endpoints of the backend that a worker serves; at least one, all of one type."""

    def __init__(self, servers: Sequence[Server]) -> None:
        """Choose among these."""
        self.all = tuple(servers)
        self.failed_at: OrderedDict[str, str] = OrderedDict()
        """Address where a job failed last, by its id."""

    @property
    def name(self) -> str:
        """The backend's."""
        return self.all[0].adapter.name

    @property
    def everywhere(self) -> Everywhere:
        """All of them at once."""
        adapters = {server.address: server.adapter for server in self.all}
        up = [server.address for server in self.all if server.breaker.open_until is None]
        return Everywhere(self.name, adapters, up)

    @property
    def error(self) -> str | None:
        """What is wrong with the backend; None while one of its endpoints is well."""
        errors = [server.error for server in self.all]
        return None if None in errors else "; ".join(dict.fromkeys(e for e in errors if e))

    @property
    def open_until(self) -> float | None:
        """When the first circuit may let a job through again; None if one does, or may soon."""
        times = [server.breaker.open_until for server in self.all]
        return None if None in times else min(time for time in times if time is not None)

    def admit(self, queue: str) -> bool:
        """Whether an endpoint takes one more job of that queue."""
        return any(server.takes(queue) for server in self.all)

    def slots(self, queue: str) -> int:
        """Jobs of that queue at once, over all endpoints."""
        each = [server.slots.get(queue, 0) for server in self.all]
        return min(each) if kind_of(queue) in EVERYWHERE else sum(each)

    def best(
        self,
        queue: str,
        model: str | None = None,
        failed_at: str | None = None,
        *,
        held: Server | None = None,
    ) -> Server | None:
        """The endpoint to use next; None if none takes one more job.

        The one that is `held` for the job already counts as if it were not.
        """

        def rank(server: Server) -> tuple[bool, bool, bool, bool, int]:
            return (
                server.lacks(model),
                server.address == failed_at,
                server.error is not None,
                not server.is_warm(model),
                server.in_flight - (server is held),
            )

        room = [server for server in self.all if server is held or server.takes(queue)]
        return min(room, key=rank, default=None)

    @contextmanager
    def seat(self, queue: str) -> Iterator[Seat | None]:
        """A place for one job, held while the block runs; None if there is no room."""
        server = self.best(queue)
        if server is None:
            yield None
            return
        seat = Seat(self, queue, server)
        try:
            yield seat
        finally:
            seat.leave()

    def packs(self, model: str) -> bool | None:
        """Whether jobs of a model share requests, at every endpoint that knows."""
        packers = [server.packer for server in self.all if server.packer is not None]
        known = {packer.packs(model) for packer in packers} - {None}
        return False not in known if known else None

    async def aclose(self) -> None:
        """Let go of every connection."""
        await asyncio.gather(*(server.packer.aclose() for server in self.all if server.packer))
        await asyncio.gather(*(server.adapter.aclose() for server in self.all))
