"""The adapter for an ONNX cross-encoder in a folder, run in the process of the worker.

A cross-encoder reads a query and a document together and gives one number. Folders are those of
transformers and optimum: `config.json`, `tokenizer.json`, `model.onnx` with an output of one number
for each pair (`logits`). As in `onnx.py`, one thread runs batch by batch, so that jobs interleave.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from contract.errors import BadEndpoint, InputTooLarge, ModelMissing, NotSupported, ServerFault
from contract.events import Done, Phase, Scores, Usage
from contract.model_names import close
from contract.rerank import RerankRequest
from contract.roster import ModelReport
from workers.backends.in_process.onnx_encoder import (
    EXTRA,
    INPUTS,
    Floats,
    batches,
    foreign,
    input_type,
    session,
)
from workers.backends.in_process.onnx_folder import json_of, read_folder
from workers.backends.protocols import Stream
from workers.backends.score_rows import ScoreRows

MAX_BATCH_TOKENS: Final = 512
"""As for embeddings: one core gains nothing from more."""
WINDOW: Final = 256
"""Neighbouring pairs that are sorted by length."""
BLOCK: Final = 256
"""Most scores of an event."""
TOKENIZE_PAIRS: Final = 64
"""Pairs tokenized at once; a cancel takes effect in between."""
MAX_PAIRS: Final = 256
"""Pairs that jobs share in one request."""
_CLASSIFIER: Final = "ForSequenceClassification"
_ACTIVATIONS: Final = {"Sigmoid": True, "Identity": False}

Answer = TypeVar("Answer")


def is_ranker(folder: Path) -> bool:
    """Whether the model of a folder is a cross-encoder; raises NotSupported for invalid JSON."""
    names = json_of(folder / "config.json").get("architectures") or ()
    return any(str(name).endswith(_CLASSIFIER) for name in names)


class PairTokens(NamedTuple):
    """The tokens of a query and a document together."""

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    """0 for tokens of the query, 1 for those of the document."""


class PairEncoder:
    """One session and its tokenizer. Not thread-safe."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Load the model; raises ModelMissing, NotSupported or BadEndpoint."""
        try:
            import onnxruntime  # noqa: PLC0415 - the extra is optional
            import tokenizers  # noqa: PLC0415
        except ImportError as error:
            raise NotSupported(f"local reranking needs {error.name}: {EXTRA}") from error
        self.folder = read_folder(folder)
        self.version = f"onnxruntime {onnxruntime.__version__}"
        with foreign(BadEndpoint, f"cannot load {folder}"):
            self._tokenizer = tokenizers.Tokenizer.from_file(str(self.folder.tokenizer))
            self._session = session(onnxruntime, self.folder.onnx, threads)
        self._tokenizer.no_padding()
        self._cut()
        self._inputs = {node.name: input_type(node.type) for node in self._session.get_inputs()}
        if unknown := self._inputs.keys() - INPUTS:
            raise NotSupported(f"{self.folder.onnx} wants inputs {sorted(unknown)}")
        self._has_sigmoid = _has_sigmoid(folder)
        self._output = _output_of(self._session)
        self.encode([self.tokens([("a", "b")])[0]])

    def tokens(self, pairs: Sequence[tuple[str, str]]) -> list[PairTokens]:
        """Tokens of each pair; the longer text is cut where both do not fit."""
        return [
            PairTokens(np.array(each.ids, np.int32), np.array(each.type_ids, np.int32))
            for each in self._tokenizer.encode_batch(list(pairs))
        ]

    def lengths(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """Tokens of each whole pair."""
        self._tokenizer.no_truncation()
        try:
            return [len(each.ids) for each in self._tokenizer.encode_batch(list(pairs))]
        finally:
            self._cut()

    def _cut(self) -> None:
        self._tokenizer.enable_truncation(self.folder.max_tokens, strategy="longest_first")

    def encode(self, pairs: Sequence[PairTokens]) -> Floats:
        """A score for each of the pairs, which run as one batch; raises ServerFault."""
        width = max(len(pair.ids) for pair in pairs)
        ids = np.full((len(pairs), width), self.folder.pad_id, np.int64)
        types, mask = np.zeros((len(pairs), width), np.int64), np.zeros_like(ids)
        for at, pair in enumerate(pairs):
            ids[at, : len(pair.ids)] = pair.ids
            types[at, : len(pair.ids)] = pair.types
            mask[at, : len(pair.ids)] = 1
        positions = np.broadcast_to(np.arange(width), ids.shape)
        feed = {
            "input_ids": ids, "attention_mask": mask, "token_type_ids": types,
            "position_ids": positions,
        }  # fmt: skip
        feed = {name: feed[name].astype(dtype) for name, dtype in self._inputs.items()}
        with foreign(ServerFault, f"{self.folder.onnx} failed"):
            logits: NDArray[Any] = self._session.run([self._output], feed)[0]
        if logits.shape not in {(len(pairs), 1), (len(pairs),)}:
            raise NotSupported(
                f"{self.folder.onnx} gives {logits.shape[-1]} numbers a pair: a reranker gives one"
            )
        scores = logits.reshape(len(pairs)).astype(np.float64)
        if self._has_sigmoid:
            scores = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
        return scores.astype(np.float32)


def _output_of(session: Any) -> str:
    names = [node.name for node in session.get_outputs()]
    return "logits" if "logits" in names else str(names[0])


def _has_sigmoid(folder: Path) -> bool:
    """What sentence-transformers does after the model: a sigmoid, unless the folder says no."""
    config = json_of(folder / "config.json")
    newer = (config.get("sentence_transformers") or {}).get("activation_fn")
    name = newer or config.get("sbert_ce_default_activation_function") or "Sigmoid"
    word = str(name).rpartition(".")[2]
    if word not in _ACTIVATIONS:
        raise NotSupported(f"{folder}: activation {word}; supported: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[word]


class LocalRerank:
    """Serves the one cross-encoder of a folder."""

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

        `max_batch_tokens` bounds a batch, padding included. Raises ModelMissing, NotSupported.
        """
        self.name = name
        self._model = model or folder.resolve().name
        self._encoder = PairEncoder(folder, threads=threads)
        self._max_batch_tokens = max_batch_tokens
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"rerank-{name}")

    async def check(self) -> str | None:
        """The version of the runtime; the model was tested when it was loaded."""
        return self._encoder.version

    async def models(self) -> Sequence[ModelReport]:
        """The report of the one model."""
        folder = self._encoder.folder
        report = ModelReport(
            name=self._model,
            traits=("rerank",),
            lacks=("chat", "embed", "image"),
            warm=True,
            context_length=folder.max_tokens,
            size_bytes=folder.size_bytes,
        )
        return (report,)

    async def aclose(self) -> None:
        """Wait for the running batch only."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._thread.shutdown)

    def max_pairs(self, model: str) -> int:  # noqa: ARG002 - there is one
        """The most pairs of one request."""
        return MAX_PAIRS

    async def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """Yield scores in order, in blocks.

        Raises ModelMissing, or InputTooLarge before any score.
        """
        self._demand_model(request.model)
        tokens = await self._tokenized(request)
        rows, sent = ScoreRows(request), 0
        scores = np.full(len(tokens), np.nan, np.float32)
        is_ready = np.zeros(len(tokens), np.bool_)
        for batch in batches([len(pair.ids) for pair in tokens], self._max_batch_tokens, WINDOW):
            scores[batch] = await self._run(
                partial(self._encoder.encode, [tokens[at] for at in batch])
            )
            is_ready[batch] = True
            ready = len(tokens) if is_ready.all() else int(is_ready.argmin())
            while ready - sent >= BLOCK or sent < ready == len(tokens):
                end = min(sent + BLOCK, ready)
                yield rows.add(scores[sent:end].tolist(), {})
                sent = end
        yield Done(usage=Usage(prompt_tokens=sum(len(pair.ids) for pair in tokens)))

    def _demand_model(self, model: str) -> None:
        if model == self._model:
            return
        hint = f"did you mean {self._model!r}?" if close(model, [self._model]) else (
            f"it has {self._model!r}"
        )  # fmt: skip
        raise ModelMissing(f"backend {self.name!r} has no model {model!r}; {hint}")

    async def _tokenized(self, request: RerankRequest) -> list[PairTokens]:
        tokens: list[PairTokens] = []
        pairs = request.pairs
        for start in range(0, len(pairs), TOKENIZE_PAIRS):
            some = pairs[start : start + TOKENIZE_PAIRS]
            if request.truncate is False:
                self._demand_room(await self._run(partial(self._encoder.lengths, some)), start)
            tokens += await self._run(partial(self._encoder.tokens, some))
        return tokens

    def _demand_room(self, lengths: Sequence[int], first: int) -> None:
        limit = self._encoder.folder.max_tokens
        for at, length in enumerate(lengths, first):
            if length > limit:
                raise InputTooLarge(
                    f"documents[{at}] has {length} tokens with its query, and {self._model} takes"
                    f" {limit}; cut it, or allow truncate"
                )

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
