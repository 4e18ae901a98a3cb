"""Which jobs a worker would take next: four rules over what its slots hold. No I/O.

- A backend that swaps models is asked for warm ones first (`Taking.warm`; relay/order.py bounds for
  how long a cold head may be passed over). A backend none of whose models is cold has nothing to
  choose: hosted ones do not tell, servers of one model have it in memory.
- One load at a time. From the claim of a cold model's job to its first output, only jobs of warm
  models are taken, and those of the model that loads wait as well: asked twice, some servers load
  it twice (lmstudio-bug-tracker #1751). Pulling is no loading.
- A backend that seems to put a model out while it speaks, to load another one, gets jobs of one
  model at a time; a cold head waits for those that run, and is overtaken for as long as ever
  (LM Studio #671, #1796, llama.cpp #21678, llama-swap #588). The next look decides: a model that
  is still in memory broke off for another reason. A suspicion that held is dropped after minutes.
- One slot in four is kept free of class `batch`, from four slots up.

A model that jobs want loaded with different context lengths (contract/model_names.py) counts as one
model for each of them here: warm as it was loaded last, and cold otherwise.

What is warm: what the backend told at the last look, what runs here, and what ran here last if the
backend does not list it (an alias). A load may have put out any model that was warm before; so
after one, only what runs here counts until the backend has been looked at again.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
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
"""Events that are ours and tell nothing about the backend."""
_BROKEN_OFF: Final = (TruncatedStream, ServerFault, BackendUnreachable)
"""How an answer ends whose model is put out."""
_ONE_IN: Final = 4
_OFFER_S: Final = 0.5
"""How often tickets are offered to other workers that this one cannot use while it loads."""
_EVICTS_S: Final = 300.0
"""How long a backend that evicts what speaks is asked for one model at a time."""


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
        """How models were loaded last of which jobs have chosen it, by their untagged names."""

    @property
    def _has_choice(self) -> bool:
        return self._is_any_cold or bool(self._loaded_as)

    def loading(self, queue: str) -> str | None:
        """The model that is loaded now, and for which jobs of that queue may have to wait."""
        if kind_of(queue) not in IN_MEMORY or not self._loads:
            return None
        return model_of(next(iter(self._loads.values())))

    def on_models(self, models: Sequence[ModelReport]) -> None:
        """Take what the backend was just seen to have in memory."""
        self._is_any_cold = any(model.warm is False for model in models)
        listed = {untagged(model.name) for model in models}
        self._loaded_as = {m: how for m, how in self._loaded_as.items() if m in listed}
        warm = [untagged(model.name) for model in models if model.warm]
        self._reported = frozenset(all_spellings(self._loaded_as.get(name, name) for name in warm))
        if self._last is not None and untagged(model_of(self._last)) in listed:
            self._last = None
        self._check_eviction()
        if not self._has_choice:
            self._wake_waiting()

    def _check_eviction(self) -> None:
        """Whether the backend evicts, now that it was seen what is in memory."""
        if not self._evicts:
            return
        now = asyncio.get_running_loop().time()
        if self._suspect is not None:
            self._evicts = self._suspect not in self._reported
            self._evicts_until = now + _EVICTS_S
            self._suspect = None
        elif now > self._evicts_until:
            self._evicts = False
        if not self._evicts:
            self._wake_waiting()

    @asynccontextmanager
    async def turn(self, queue: str) -> AsyncGenerator[ClaimFilter]:
        """What to claim from the queue now; tell `began` within the block what was claimed.

        Waits for another claim where what it brings decides on what this one may bring: twenty
        slots that ask at once must not all get a job of the same cold model.
        """
        while self._must_wait(queue):
            self._claimed.clear()
            await self._claimed.wait()
        self._claiming[queue] += 1
        try:
            yield self._filter(queue)
        finally:
            self._claiming[queue] -= 1
            self._claimed.set()

    def on_claimed(self, record: JobRecord, loaded: str | None = None) -> None:
        """A job was claimed; `loaded` is its model as the backend loads it for this job."""
        if record.priority == "batch":
            self._batch[record.queue] += 1
        if record.kind not in IN_MEMORY or record.model is None:
            return
        model = self._models[record.id] = loaded or record.model
        is_warm = model in self._warm
        self._note(model)
        if self._has_choice and not is_warm:
            self._load(record.id)
        else:
            self._runs[record.id] = model

    def _note(self, loaded: str) -> None:
        """Remember how a model is loaded, once jobs choose it."""
        model = untagged(model_of(loaded))
        if model_of(loaded) != loaded or model in self._loaded_as:
            self._loaded_as[model] = canonical(loaded)

    def on_nothing_claimed(self, queue: str, claim_filter: ClaimFilter) -> None:
        """Nothing was claimed: if that is due to what is under way, try again when it is over.

        Meanwhile another worker may be free for the job whose ticket we had.
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
        """Something that a job said before its first output, or that output."""
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
        """The backend failed a job; was its model put out by a load that began meanwhile?"""
        before = self._output_at.get(job_id, self._loads_begun)
        if isinstance(error, _BROKEN_OFF) and before < self._loads_begun and not self._evicts:
            _log.warning(
                "%s broke off while another model was loaded: one at a time for now",
                self._models[job_id],
            )
            self._evicts, self._suspect = True, self._models[job_id]
            self.stale.set()

    def on_released(self, record: JobRecord) -> None:
        """A job is not ours any more, however it ended."""
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
        here = [*self._runs.values(), *([self._last] if self._last else [])]
        return self._reported | all_spellings(here)

    def _must_wait(self, queue: str) -> bool:
        room = self._for_batch(queue) - self._batch[queue]
        if 0 < room <= self._claiming[queue]:
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
        """Let those try again that were left waiting."""
        self._claimed.set()
        for queue in self._waiting:
            self._wake(queue, 0.0)
        self._waiting.clear()
