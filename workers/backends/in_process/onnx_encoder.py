"""A sentence-embedding model loaded with onnxruntime: texts to tokens to vectors, blocking.

Padding changes no vector: masked tokens get no attention and are excluded from pooling.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.errors import (
    BackendError,
    BadEndpoint,
    NotSupported,
    ServerFault,
)
from workers.backends.in_process.onnx_folder import Pooling, read_folder

EXTRA: Final = "pip install 'llm-fleet[local-embed]'"
POOLED: Final = "sentence_embedding"
"""The output of a graph that includes pooling."""
INPUTS: Final = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
_TINY: Final = 1e-12

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of a text."""

    ids: NDArray[np.int32]
    length: int
    """Tokens of the whole text; more than `ids` if it was truncated."""


class LocalEncoder:
    """One session and its tokenizer. Not thread-safe."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Load the model (some hundred milliseconds).

        Raises ModelMissing, NotSupported (also for a missing extra) or BadEndpoint.
        """
        try:
            import onnxruntime  # noqa: PLC0415 - the extra is optional
            import tokenizers  # noqa: PLC0415
        except ImportError as error:
            raise NotSupported(f"local embeddings need {error.name}: {EXTRA}") from error
        if threads == 1:
            # Otherwise the tokenizer uses every core, whatever `threads` is.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.folder = read_folder(folder)
        self.version = f"onnxruntime {onnxruntime.__version__}"
        with foreign(BadEndpoint, f"cannot load {folder}"):
            self._tokenizer = tokenizers.Tokenizer.from_file(str(self.folder.tokenizer))
            self._session = session(onnxruntime, self.folder.onnx, threads)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.folder.max_tokens)
        self._inputs = {node.name: input_type(node.type) for node in self._session.get_inputs()}
        self._output, self._pooling = self._choose_output()
        self.dimension = int(self.encode([self.tokens(["a"])[0].ids]).shape[1])

    def tokens(self, texts: Sequence[str], prompt: str | None = None) -> list[Tokens]:
        """Tokens of each text, truncated to the model's limit; an empty text has at least one.

        `prompt` replaces that of the folder.
        """
        before = self.folder.prompt if prompt is None else prompt
        prepared = [before + text for text in texts]
        if self.folder.lowers:
            prepared = [text.lower() for text in prepared]
        return [self._tokens(encoding) for encoding in self._tokenizer.encode_batch_fast(prepared)]

    def encode(self, rows: Sequence[NDArray[np.int32]], *, raw: bool = False) -> Floats:
        """Vectors ([len(rows), dimension]) of texts that run as one batch; raises ServerFault.

        `raw`: they are not scaled to length 1 if the folder says so.
        """
        width = max(len(row) for row in rows)
        ids = np.full((len(rows), width), self.folder.pad_id, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(ids)
        if "position_ids" in self._inputs:
            feed["position_ids"] = np.broadcast_to(np.arange(width), ids.shape)
        feed = {name: feed[name].astype(dtype) for name, dtype in self._inputs.items()}
        with foreign(ServerFault, f"{self.folder.onnx} failed"):
            hidden = self._session.run([self._output], feed)[0].astype(np.float32, copy=False)
        vectors: Floats = hidden if self._pooling is None else pool(hidden, mask, self._pooling)
        return unit(vectors) if self.folder.normalizes and not raw else vectors

    def _tokens(self, encoding: Any) -> Tokens:
        rest = sum(len(part.ids) - sum(part.special_tokens_mask) for part in encoding.overflowing)
        # A tokenizer without special tokens makes none of an empty text.
        ids = np.array(encoding.ids or [self.folder.pad_id], np.int32)
        return Tokens(ids, len(ids) + rest)

    def _choose_output(self) -> tuple[str, Pooling | None]:
        """The pooled output where the graph has one, else the tokens' and how to pool them."""
        if unknown := self._inputs.keys() - INPUTS:
            raise NotSupported(f"{self.folder.onnx} wants inputs {sorted(unknown)}")
        outputs = {node.name: len(node.shape or ()) for node in self._session.get_outputs()}
        if POOLED in outputs:
            return POOLED, None
        if self.folder.extra_modules:
            names = ", ".join(self.folder.extra_modules)
            raise NotSupported(
                f"{self.folder.onnx} lacks the modules {names}: export it with an output {POOLED}"
            )
        known = [name for name in ("last_hidden_state", "token_embeddings") if name in outputs]
        name = (known or list(outputs))[0]
        return name, None if outputs[name] == 2 else self.folder.pooling  # noqa: PLR2004


@contextmanager
def foreign(kind: type[BackendError], what: str) -> Iterator[None]:
    """Raise errors of both libraries as BackendError: they are direct children of Exception."""
    try:
        yield
    except Exception as error:
        raise kind(f"{what}: {error}") from error


@lru_cache(maxsize=1)
def session(onnxruntime: Any, path: Path, threads: int) -> Any:
    """The model in memory; a worker builds its adapter twice and loads the model once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would use the cores of other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def input_type(declared: str) -> type[np.int32] | type[np.int64]:
    """The number type of an input, as the graph declares it."""
    return np.int32 if declared == "tensor(int32)" else np.int64


def pool(hidden: Floats, mask: NDArray[np.int64], pooling: Pooling) -> Floats:
    """Pool token vectors ([batch, sequence, hidden]) to text vectors ([batch, hidden]).

    `mask` ([batch, sequence]) is 1 for tokens, which come first, and 0 for padding.
    """
    seen = mask[:, :, np.newaxis].astype(np.float32)
    match pooling:
        case "cls":
            pooled = hidden[:, 0]
        case "max":
            pooled = np.where(seen > 0, hidden, -np.inf).max(axis=1)
        case "lasttoken":
            pooled = hidden[np.arange(len(hidden)), mask.sum(axis=1) - 1]
        case _:
            pooled = (hidden * seen).sum(axis=1) / seen.sum(axis=1)
    vectors: Floats = pooled
    return vectors


def unit(vectors: Floats) -> Floats:
    """Each row scaled to length 1; a row of zeros is unchanged."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / np.maximum(lengths, _TINY)
    return scaled


Batch = list[int]
"""Indexes of texts."""


def batches(lengths: Sequence[int], max_tokens: int, window: int) -> Iterator[Batch]:
    """Indexes of `lengths` (tokens of each text), batch by batch.

    Texts are sorted by length within windows of `window` neighbours only, so that the first rows
    are ready long before the last. The longest come first: memory grows once.
    """
    for start in range(0, len(lengths), window):
        end = min(start + window, len(lengths))
        longest_first = sorted(range(start, end), key=lengths.__getitem__, reverse=True)
        batch: Batch = []
        for at in longest_first:
            # The first is the longest, and all are padded to it.
            if batch and lengths[batch[0]] * (len(batch) + 1) > max_tokens:
                yield batch
                batch = []
            batch.append(at)
        yield batch
