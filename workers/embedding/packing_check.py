"""Checks whether a model returns the same vectors for texts alone and in a batch.

Some servers return other vectors for a batch (ollama #6262, and a llama-server that averages over
a causal model): padding that is not masked, or rows that are mixed up. Floating-point results
differ with the order of summation, so the comparison has a tolerance.

A model is checked once in a worker's life: when texts of two jobs could first share a request, and
after its first response, because the check must not load it. Before the check, and if it fails, no
two jobs share a request. If it fails, requests of the model are also sent one after the other: a
server that batches concurrent requests has the same fault.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, NamedTuple, TypeVar

from contract.embeddings import unpack
from contract.errors import BackendError
from contract.events import Vectors
from contract.model_names import untagged
from workers.backends.protocols import Embed
from workers.embedding.options import PackingOptions

_log = logging.getLogger(__name__)

_CHECK_S: Final = 120.0
_AGAIN_S: Final = 60.0
"""Seconds after which a check that failed is tried again."""
_REMEMBERED: Final = 1000

Known = TypeVar("Known")


TEXTS: Final = (
    "queue",
    "A worker takes the next job.",
    "Wer zu spät kommt, hört trotzdem jedes Wort: 列に並ぶ.",
    "In the morning the post office opens at eight, and each customer is served in order. " * 2,
    "0x1F, 3.14159 & <b>42</b>",
    "The river rises in the hills, runs past the mill and the old bridge, and ends in the sea. "
    * 4,
)
"""From one word to some ninety tokens: together, all but one are padded."""
BATCHES: Final = (TEXTS, TEXTS[::-1], (*TEXTS, *TEXTS[::-1]) * 2)
"""The batches to compare. A busy server may process the texts of a request one by one: a
llama-server with wrong means in a batch passed 6 of 40 comparisons of six texts,
and none of 40 of 24 texts."""
LEAST_COSINE: Final = 0.999
"""Half precision summed in another order stays above; another text's vector is far below."""
MOST_STRETCH: Final = 0.01
"""Largest difference of the two lengths, as a fraction of the longer."""


class Similarity(NamedTuple):
    """The worst pair of vectors."""

    cosine: float
    stretch: float
    """Difference of the two lengths, as a fraction of the longer."""

    @property
    def is_same(self) -> bool:
        """Whether both are within the tolerance; NaN is not."""
        return self.cosine >= LEAST_COSINE and self.stretch <= MOST_STRETCH


def similarity(alone: Sequence[Sequence[float]], together: Sequence[Sequence[float]]) -> Similarity:
    """The worst pair of rows; (0, 1) if widths or numbers of rows differ, NaN for a NaN."""
    if [len(row) for row in alone] != [len(row) for row in together]:
        return Similarity(0.0, 1.0)
    pairs = [_pair(one, other) for one, other in zip(alone, together, strict=True)]
    # min and max ignore NaN or return it, depending on its position.
    if any(math.isnan(value) for pair in pairs for value in pair):
        return Similarity(math.nan, math.nan)
    return Similarity(min(pair.cosine for pair in pairs), max(pair.stretch for pair in pairs))


def _pair(one: Sequence[float], other: Sequence[float]) -> Similarity:
    lengths = math.hypot(*one), math.hypot(*other)
    if not all(lengths):
        return Similarity(1.0, 0.0) if lengths[0] == lengths[1] else Similarity(0.0, 1.0)
    cosine = sum(a * b for a, b in zip(one, other, strict=True)) / (lengths[0] * lengths[1])
    return Similarity(cosine, abs(lengths[0] - lengths[1]) / max(lengths))


class PackingChecks:
    """The models of one endpoint."""

    def __init__(self, backend: Embed, on_checked: Callable[[], None]) -> None:
        """No model is checked yet; `on_checked` is called after each check."""
        self._backend = backend
        self._on_checked = on_checked
        self._same: dict[str, bool] = {}
        self._not_before: dict[str, float] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._answered: dict[str, bool] = {}

    def of(self, model: str) -> bool | None:
        """Whether texts of several jobs may share a request; None before the check."""
        return self._same.get(untagged(model))

    def answered(self, model: str) -> None:
        """Record that the model responded, so that it is in memory."""
        _keep(self._answered, untagged(model), value=True)

    def start(self, options: PackingOptions) -> None:
        """Start the check, unless it is done, running, failed lately, or might load the model."""
        model, now = untagged(options.model), asyncio.get_running_loop().time()
        if model in self._same or model in self._checks or model not in self._answered:
            return
        if now < self._not_before.get(model, now):
            return
        self._checks[model] = task = asyncio.create_task(self._check(model, options))
        task.add_done_callback(partial(self._checked, model))

    def _checked(self, model: str, task: asyncio.Task[None]) -> None:
        self._checks.pop(model, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the check of model %s raised unexpectedly", model, exc_info=error)

    async def aclose(self) -> None:
        """Cancel the running checks."""
        checks = list(self._checks.values())
        for task in checks:
            task.cancel()
        if checks:
            await asyncio.wait(checks)

    async def _check(self, model: str, options: PackingOptions) -> None:
        keep_alive_s = options.keep_alive_s or None  # 0 would unload it each time
        options = PackingOptions(
            options.model, truncate=options.truncate, keep_alive_s=keep_alive_s
        )
        try:
            async with asyncio.timeout(_CHECK_S):
                alone = {text: (await self._rows(options, [text]))[0] for text in TEXTS}
                found = await self._worst(options, alone)
        except (BackendError, TimeoutError, IndexError) as error:
            _log.warning(
                "model %s: the check whether texts may share a request failed: %s", model, error
            )
            _keep(self._not_before, model, asyncio.get_running_loop().time() + _AGAIN_S)
            return
        level = logging.INFO if found.is_same else logging.WARNING
        _log.log(
            level, "model %s: jobs %s requests; vectors alone and together have a cosine of %.5f,"
            " and lengths that differ by %.5f",
            model, "share" if found.is_same else "do not share", found.cosine, found.stretch,
        )  # fmt: skip
        _keep(self._same, model, found.is_same)
        self._on_checked()

    async def _worst(self, options: PackingOptions, alone: Mapping[str, list[float]]) -> Similarity:
        """The result of the first batch that differs, else of the last batch."""
        found = Similarity(1.0, 0.0)
        for batch in BATCHES:
            found = similarity([alone[text] for text in batch], await self._rows(options, batch))
            if not found.is_same:
                break
        return found

    async def _rows(self, options: PackingOptions, texts: Sequence[str]) -> list[list[float]]:
        found: list[list[float]] = []
        async with aclosing(self._backend.embed(options.request(texts))) as events:
            async for event in events:
                if isinstance(event, Vectors):
                    found += unpack(event.data, event.dimension)
        return found


def _keep(known: dict[str, Known], model: str, value: Known) -> None:
    known[model] = value
    while len(known) > _REMEMBERED:
        known.pop(next(iter(known)))
