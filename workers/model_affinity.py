"""Which jobs a worker may claim next: four rules over the models that its jobs use. No I/O.

- A backend that swaps models gets jobs of models in memory first (`ClaimFilter.warm`;
  relay/order.py bounds for how long a cold first job may be overtaken). Without a cold model there
  is nothing to decide: hosted backends do not report it, servers of one model have it in memory.
- One load at a time. From the claim of a cold model's job to its first output only jobs of warm
  models are claimed, and those of the model that loads wait as well: some servers load a model
  twice if two requests need it (lmstudio-bug-tracker #1751). A pull is not a load.
- A backend that seems to evict a model while it generates, to load another one, gets jobs of one
  model at a time; a cold first job waits for those that run, and may be overtaken as before
  (LM Studio #671, #1796, llama.cpp #21678, llama-swap #588). The next probe that begins decides: if
  the model is still in memory, its answer broke off for another reason. The rule ends after some
  minutes.
- From four slots up, one slot in four runs no job of class `batch`.

A model that jobs load with different context lengths (contract/model_names.py) counts as one model
for each length: warm as it was loaded last, cold otherwise.

Warm are the models of the last probe, those of running jobs, and the one that ran last if the
backend does not list it (an alias). A load may evict any model; after one, only the models of
running jobs count until the next probe.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from contract.errors import (
    BackendError,
    BackendUnreachable,
    ServerFault,
    TruncatedStream,
)
from contract.events import Event, Phase, Queued, Reset, Resumed, Started
from contract.jobs import JobRecord
from contract.model_names import all_spellings, canonical, model_of, untagged
from contract.redis_keys import kind_of
from contract.roster import ModelReport
from relay.order import ClaimFilter
from workers.endpoints.endpoints import IN_MEMORY
from workers.slots import Slots

_log = logging.getLogger(__name__)

_CHANGES_MODELS: Final = frozenset({"pull", "delete", "create", "copy", "unload"})
_NOT_FROM_BACKEND: Final = (Queued, Started, Reset, Resumed)
"""Events of the fleet itself, which show nothing about the backend."""
_INTERRUPTED: Final = (TruncatedStream, ServerFault, BackendUnreachable)
"""Errors of an answer whose model was evicted."""
_ONE_IN: Final = 4
_OFFER_S: Final = 0.5
"""Seconds between two offers, to other workers, of tickets that this one cannot use now."""
_EVICTS_S: Final = 300.0
"""Seconds for which a backend that evicts busy models gets one model at a time."""


class ClaimTurn:
    """One claim of a queue, from before it is decided what it may claim."""

    __slots__ = ("_affinity", "_queue")

    def __init__(self, affinity: "ModelAffinity", queue: str) -> None:
        """Made by `ModelAffinity.turn`."""
        self._affinity = affinity
        self._queue = queue

    async def __aenter__(self) -> ClaimFilter:
        return await self._affinity.begin_claim(self._queue)

    async def __aexit__(self, *_: object) -> None:
        self._affinity.end_claim(self._queue)


class ModelAffinity:
    """Decides which jobs one worker may claim, by the models that its jobs use now."""

    def __init__(
        self, slots: Slots, wake: Callable[[str, float], None], stale: asyncio.Event | None = None
    ) -> None:
        """Start with no job and no model known, so that models load one at a time at first.

        `wake` sends the tickets of a queue after some seconds.
        """
        self.changed = asyncio.Event()
        """Set when a load has begun or ended."""
        self.stale = stale or asyncio.Event()
        """Set when the backend should be probed: its models may have changed."""
        self._slots = slots
        self._wake = wake
        self._models: dict[str, str] = {}
        self._loads: dict[str, str] = {}
        self._runs: dict[str, str] = {}
        self._output_at: dict[str, int] = {}
        self._loads_begun = 0
        self._evicts = False
        self._suspect: str | None = None
        self._has_reloaded_suspect = False
        self._evicts_until = math.inf
        self._batch: Counter[str] = Counter()
        self._claiming: Counter[str] = Counter()
        self._claimed = asyncio.Event()
        self._waiting: set[str] = set()
        self._offered_at: dict[str, float] = {}
        self._is_any_cold = True
        self._reported: frozenset[str] = frozenset()
        self._last: str | None = None
        self._loaded_as: dict[str, str] = {}
        """How models were loaded last whose jobs have set it, by their untagged names."""

    @property
    def _has_choice(self) -> bool:
        return self._is_any_cold or bool(self._loaded_as)

    def loading(self, queue: str) -> str | None:
        """Return the model that is being loaded, if jobs of `queue` may wait for it."""
        if kind_of(queue) not in IN_MEMORY or not self._loads:
            return None
        return model_of(next(iter(self._loads.values())))

    @property
    def suspect(self) -> str | None:
        """The model that may have been evicted; a probe that begins now decides whether."""
        return self._suspect

    def on_models(self, models: Sequence[ModelReport], suspect: str | None = None) -> None:
        """Take the models of a probe, with which of them are in memory.

        `suspect` is what it was when the probe began.
        """
        self._is_any_cold = any(model.warm is False for model in models)
        listed = {untagged(model.name) for model in models}
        self._loaded_as = {m: how for m, how in self._loaded_as.items() if m in listed}
        warm = [untagged(model.name) for model in models if model.warm]
        self._reported = frozenset(all_spellings(self._loaded_as.get(name, name) for name in warm))
        if self._last is not None and untagged(model_of(self._last)) in listed:
            self._last = None
        self._check_eviction(suspect)
        if not self._has_choice:
            self._wake_waiting()

    def _check_eviction(self, suspect: str | None) -> None:
        """Decide after a probe whether the backend evicts busy models."""
        if not self._evicts or self._suspect != suspect:
            return  # a probe that had begun before saw what was in memory then
        now = asyncio.get_running_loop().time()
        if self._suspect is not None:
            # A retry may have loaded it again before the probe: then that shows nothing.
            is_gone = self._suspect not in self._reported
            self._evicts = is_gone or self._has_reloaded_suspect
            self._evicts_until = now + _EVICTS_S
            self._suspect = None
        elif now > self._evicts_until:
            self._evicts = False
        if not self._evicts:
            self._wake_waiting()

    def turn(self, queue: str) -> "ClaimTurn":
        """Return a context that gives which jobs of `queue` may be claimed.

        Call `on_claimed` within the block. It waits for another claim whose result decides what
        this one may claim: twenty slots that claim at once must not all get a job of the same cold
        model.
        """
        return ClaimTurn(self, queue)

    async def begin_claim(self, queue: str) -> ClaimFilter:
        """Begin a turn."""
        while self.must_wait(queue):
            self._claimed.clear()
            await self._claimed.wait()
        self._claiming[queue] += 1
        return self._filter(queue)

    def end_claim(self, queue: str) -> None:
        """End a turn that has begun."""
        self._claiming[queue] -= 1
        self._claimed.set()

    def on_claimed(self, record: JobRecord, loaded: str | None = None) -> None:
        """Count a claimed job; `loaded` is its model as the backend loads it for this job."""
        if record.priority == "batch":
            self._batch[record.queue] += 1
        if record.kind not in IN_MEMORY or record.model is None:
            return
        model = self._models[record.id] = loaded or record.model
        self._note(model)
        if self._has_choice and model not in self._warm:
            self._load(record.id)
        else:
            self._runs[record.id] = model

    def _note(self, loaded: str) -> None:
        """Remember how a model is loaded, once jobs set it."""
        model = untagged(model_of(loaded))
        if model_of(loaded) != loaded or model in self._loaded_as:
            self._loaded_as[model] = canonical(loaded)

    def on_nothing_claimed(self, queue: str, claim_filter: ClaimFilter) -> None:
        """Try again later if a load or a running job was the reason.

        Meanwhile the ticket is offered to other workers.
        """
        if claim_filter.cold:
            return
        if not (self._loads or (claim_filter.drains and self._runs)):
            self._wake(queue, 0.0)
            return
        self._waiting.add(queue)
        now = asyncio.get_running_loop().time()
        if now - self._offered_at.get(queue, -math.inf) > _OFFER_S:
            self._offered_at[queue] = now
            self._wake(queue, _OFFER_S)

    def on_event(self, job_id: str, event: Event) -> None:
        """Receive an event of a job before its first output, or that output."""
        if job_id not in self._models or isinstance(event, _NOT_FROM_BACKEND):
            return
        if not isinstance(event, Phase) or event.phase not in {"loading", "pulling"}:
            self._on_output(job_id)
        elif event.phase == "loading":
            self._load(job_id)
        else:
            self._runs.pop(job_id, None)
            self._stop_loading(job_id)

    def on_failure(self, job_id: str, error: BackendError) -> None:
        """Suspect an eviction if the answer broke off and a load began since its first output."""
        before = self._output_at.get(job_id, self._loads_begun)
        if isinstance(error, _INTERRUPTED) and before < self._loads_begun and not self._evicts:
            _log.warning(
                "%s broke off while another model was loaded: one model at a time for now",
                self._models[job_id],
            )
            self._evicts, self._suspect = True, self._models[job_id]
            self._has_reloaded_suspect = False
            self.stale.set()

    def on_released(self, record: JobRecord) -> None:
        """Forget a job that this worker has released, however it ended."""
        if record.priority == "batch":
            self._batch[record.queue] -= 1
        if record.kind in _CHANGES_MODELS:
            self.stale.set()
        self._models.pop(record.id, None)
        self._output_at.pop(record.id, None)
        self._stop_loading(record.id)
        if self._runs.pop(record.id, None) and not self._runs and not self._loads:
            self._wake_waiting()

    @property
    def _warm(self) -> frozenset[str]:
        # Each name once: hundreds of jobs may run with one model.
        here = {*self._runs.values(), *([self._last] if self._last else [])}
        return self._reported | all_spellings(here)

    def must_wait(self, queue: str) -> bool:
        """Return whether another claim decides what one of `queue` may claim."""
        free = self._for_batch(queue) - self._batch[queue]
        if 0 < free <= self._claiming[queue]:
            return True
        may_load = self._has_choice and not self._loads and kind_of(queue) in IN_MEMORY
        return may_load and any(
            count and kind_of(other) in IN_MEMORY for other, count in self._claiming.items()
        )

    def _filter(self, queue: str) -> ClaimFilter:
        batch = self._batch[queue] < self._for_batch(queue)
        if not self._has_choice or kind_of(queue) not in IN_MEMORY:
            return ClaimFilter(batch=batch)
        if self._evicts and self._loads:
            return ClaimFilter(warm=frozenset(), cold=False, batch=batch)
        drains = self._evicts and bool(self._runs)
        return ClaimFilter(self._warm, cold=not (self._loads or drains), batch=batch, drains=drains)

    def _for_batch(self, queue: str) -> int:
        slots = self._slots.capacity.get(queue, 0)
        return slots - slots // _ONE_IN

    def _load(self, job_id: str) -> None:
        if job_id not in self._loads:
            self._runs.pop(job_id, None)
            self._loads[job_id] = self._models[job_id]
            self._has_reloaded_suspect |= self._models[job_id] == self._suspect
            self._loads_begun += 1
            self.changed.set()

    def _on_output(self, job_id: str) -> None:
        self._runs[job_id] = self._last = self._models[job_id]
        self._output_at.setdefault(job_id, self._loads_begun)
        self._stop_loading(job_id)

    def _stop_loading(self, job_id: str) -> None:
        if self._loads.pop(job_id, None) is None:
            return
        self._reported = frozenset()
        self.changed.set()
        self.stale.set()
        if not self._loads:
            self._wake_waiting()

    def _wake_waiting(self) -> None:
        """Wake the queues that found nothing to claim."""
        self._claimed.set()
        for queue in self._waiting:
            self._wake(queue, 0.0)
        self._waiting.clear()
