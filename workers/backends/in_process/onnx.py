"""The adapter for an ONNX embedding model in a folder, run in the process of the worker.

The model runs in one thread, batch by batch: the loop is never blocked, concurrent jobs
interleave, and a closed job stops after the running batch. Vectors are yielded in order.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from contract.embeddings import EmbedRequest, Task
from contract.errors import InputTooLarge, ModelMissing, NotFinite, NotSupported
from contract.events import Done, Phase, Usage, Vectors
from contract.features import Feature
from contract.roster import ModelReport
from workers.backends.in_process.onnx_encoder import Floats, LocalEncoder, Tokens, batches, unit
from workers.backends.protocols import Stream

MAX_BATCH_TOKENS: Final = 512
"""One core is efficient from about 300 (bench/local_embed.py); more only delays a cancel."""
WINDOW: Final = 512
"""Neighbouring texts that are sorted by length."""
BLOCK_ROWS: Final = 256
BLOCK_BYTES: Final = 512 * 1024
TOKENIZE_TEXTS: Final = 64
"""Texts tokenized at once; a cancel takes effect in between."""

_TASK_PROMPTS: Final = frozenset(get_args(Task))

Answer = TypeVar("Answer")


class LocalEmbed:
    """Serves the one embedding model of a folder."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        model: str | None = None,
        threads: int = 1,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> None:
        """Load the model; its name is `model`, by default the name of the folder.

        `max_batch_tokens` bounds a batch, padding included. Raises ModelMissing for a
        folder without a model, NotSupported for one that cannot be served or a missing extra.
        """
        self.name = name
        self._model = model or folder.resolve().name
        self._encoder = LocalEncoder(folder, threads=threads)
        self._max_batch_tokens = max_batch_tokens
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"embed-{name}")

    @property
    def grants(self) -> frozenset[Feature]:
        """Vectors of any length; and tasks, if the folder has prompts for them."""
        tasks = _TASK_PROMPTS & self._encoder.folder.prompts.keys()
        return frozenset[Feature]({"normalize", "task"} if tasks else {"normalize"})

    async def check(self) -> str | None:
        """The version of the runtime; the model was tested when it was loaded."""
        return self._encoder.version

    async def models(self) -> Sequence[ModelReport]:
        """The report of the one model."""
        report = ModelReport(
            name=self._model,
            traits=("embed",),
            warm=True,
            context_length=self._encoder.folder.max_tokens,
            dimension=self._encoder.dimension,
            size_bytes=self._encoder.folder.size_bytes,
        )
        return (report,)

    async def aclose(self) -> None:
        """Wait for the running batch only."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """Yield vectors in order, in blocks of at most 256 rows or 512 KB.

        Raises ModelMissing, NotSupported (too many dimensions) or InputTooLarge, before any row.
        """
        self._demand_model(request.model)
        dimension = self._dimension(request.dimensions)
        tokens = await self._tokenized(request)
        rows = np.empty((len(tokens), dimension), np.float32)
        is_ready = np.zeros(len(tokens), np.bool_)
        sent = 0
        lengths = [len(text.ids) for text in tokens]
        for batch in batches(lengths, self._max_batch_tokens, WINDOW):
            ids = [tokens[at].ids for at in batch]
            raw = request.normalize is False
            rows[batch] = await self._run(partial(self._encoded, ids, dimension, raw=raw))
            _demand_finite(rows, batch)
            is_ready[batch] = True
            for end in _block_ends(is_ready, sent, dimension):
                yield _vectors(rows[sent:end], sent)
                sent = end
        ignored = () if request.keep_alive_s is None else ("keep_alive_s",)
        yield Done(usage=Usage(prompt_tokens=sum(lengths)), ignored=ignored)

    def _demand_model(self, model: str) -> None:
        if model == self._model:
            return
        close = get_close_matches(model.lower(), [self._model.lower()])
        hint = f"did you mean {self._model!r}?" if close else f"it has {self._model!r}"
        raise ModelMissing(f"backend {self.name!r} has no model {model!r}; {hint}")

    def _dimension(self, wanted: int | None) -> int:
        has = self._encoder.dimension
        if wanted is not None and wanted > has:
            raise NotSupported(f"dimensions: {self._model} has {has} numbers, not {wanted}")
        return wanted or has

    async def _tokenized(self, request: EmbedRequest) -> list[Tokens]:
        limit = self._encoder.folder.max_tokens
        prompt = self._encoder.folder.prompts.get(request.task or "")
        tokens: list[Tokens] = []
        for start in range(0, len(request.input), TOKENIZE_TEXTS):
            texts = request.input[start : start + TOKENIZE_TEXTS]
            tokens += await self._run(partial(self._encoder.tokens, texts, prompt))
        for at, text in enumerate(tokens):
            if text.length > limit and request.truncate is False:
                raise InputTooLarge(
                    f"input[{at}] has {text.length} tokens, and {self._model} takes {limit}; cut"
                    " it, or allow truncate"
                )
        return tokens

    def _encoded(self, ids: Sequence[NDArray[np.int32]], dimension: int, *, raw: bool) -> Floats:
        vectors = self._encoder.encode(ids, raw=raw)
        if dimension == self._encoder.dimension:
            return vectors
        # Matryoshka embeddings: cut and normalize again.
        return vectors[:, :dimension] if raw else unit(vectors[:, :dimension])

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _demand_finite(rows: Floats, batch: Sequence[int]) -> None:
    if np.isfinite(rows[batch]).all():
        return
    at = next(at for at in batch if not np.isfinite(rows[at]).all())
    raise NotFinite(f"input[{at}]: its vector has numbers that are not finite (NaN or infinite)")


def _block_ends(is_ready: NDArray[np.bool_], start: int, dimension: int) -> list[int]:
    """Ends of the blocks that can be sent: full ones, and the last partial one."""
    most = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * dimension)))
    waiting = is_ready[start:]
    ready = start + (len(waiting) if waiting.all() else int(waiting.argmin()))
    ends = list(range(start + most, ready + 1, most))
    is_complete = ready == len(is_ready) and (ends[-1] if ends else start) < ready
    return [*ends, ready] if is_complete else ends


def _vectors(rows: Floats, index: int) -> Vectors:
    data = b64encode(rows.astype("<f4", copy=False).tobytes()).decode("ascii")
    return Vectors(index=index, count=len(rows), dimension=rows.shape[1], data=data)
