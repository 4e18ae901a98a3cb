"""Packs the pairs of rerank jobs into requests, as texts of embed jobs are packed.

A score is a vector of one number, and a pair is a text: `PairsAsTexts` shows a backend that reranks
to the packer as one that embeds, so that turns, bounds, isolation and the check whether jobs may
share requests are the same. Only for backends whose requests hold pairs with different queries
(`ScoresPairs`): elsewhere jobs with different queries could share nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

from pydantic_core import from_json
from typing_extensions import Protocol  # those of workers/backends/protocols.py are of it

from contract.embeddings import EmbedRequest, pack, unpack
from contract.errors import BackendError
from contract.events import Done, Phase, Scores, Vectors
from contract.json_lines import json_line
from contract.rerank import RerankRequest
from workers.backends.protocols import Rerank, ScoresPairs, Stream
from workers.embedding.isolation import copied
from workers.embedding.packer import ExpectedJob, Packer, PackingRules

_CHECKED: Final = "When does the post office open, and who runs past the river?"
"""The query of the texts with which packing is checked."""
_DOCUMENTS: Final = "documents["
_INPUT: Final = "input["


class _PairBackend(Rerank, ScoresPairs, Protocol):
    """A backend that reranks pairs."""


class PairsAsTexts:
    """A backend that reranks, as one whose vectors are scores; its texts are pairs in JSON."""

    def __init__(self, backend: _PairBackend) -> None:
        """Show this backend."""
        self._backend = backend

    def max_texts(self, model: str) -> int:
        """The most pairs of one request."""
        return self._backend.max_pairs(model)

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """Score the pairs; raises BackendError, which names a text by its number."""
        pairs = [_pair(text) for text in request.input]
        fields: dict[str, Any] = {"truncate": False} if request.truncate is False else {}
        scored = RerankRequest(
            model=request.model,
            queries=tuple(query for query, _ in pairs),
            documents=tuple(document for _, document in pairs),
            **fields,
        )
        with _renamed(_DOCUMENTS, _INPUT):
            async with aclosing(self._backend.rerank(scored)) as events:
                async for event in events:
                    yield _as_vectors(event) if isinstance(event, Scores) else event


class PairPacker:
    """All rerank jobs of one endpoint."""

    def __init__(
        self,
        backend: _PairBackend,
        rules: PackingRules,
        *,
        on_capacity_change: Callable[[], None] = lambda: None,
        on_checked: Callable[[], None] = lambda: None,
    ) -> None:
        """As `Packer`."""
        self._packer = Packer(
            PairsAsTexts(backend), rules,
            on_capacity_change=on_capacity_change, on_checked=on_checked,
        )  # fmt: skip

    def packs(self, model: str) -> bool | None:
        """Whether pairs of several jobs share requests; None before the check."""
        return self._packer.packs(model)

    @property
    def has_capacity(self) -> bool:
        """Whether the worker should claim another job."""
        return self._packer.has_capacity

    def expect_job(self) -> "ExpectedPairs":
        """Count a job that is being claimed, whose number of pairs is not known yet."""
        return ExpectedPairs(self._packer.expect_job())

    async def aclose(self) -> None:
        """Cancel every request."""
        await self._packer.aclose()


class ExpectedPairs:
    """A rerank job that a packer expects; see `ExpectedJob`."""

    def __init__(self, expected: ExpectedJob) -> None:
        """Made by `PairPacker.expect_job`."""
        self.tenant = ""
        """Whose job it is, once that is known."""
        self.keeps = True
        """Whether its scores may be cached."""
        self._expected = expected

    async def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """Score the job's pairs together with those of other jobs; raises BackendError."""
        texts = tuple(json_line(pair).decode() for pair in request.pairs)
        fields: dict[str, Any] = {"truncate": False} if request.truncate is False else {}
        self._expected.tenant, self._expected.keeps = self.tenant, self.keeps
        packed = EmbedRequest(model=request.model, input=texts, **fields)
        with _renamed(_INPUT, _DOCUMENTS):
            async with aclosing(self._expected.embed(packed)) as events:
                async for event in events:
                    if isinstance(event, Vectors):
                        yield _as_scores(event, request.top_n)
                    else:
                        yield event

    def settle(self) -> None:
        """Expect the job no longer; a second call changes nothing."""
        self._expected.settle()


def _pair(text: str) -> tuple[str, str]:
    """The pair that a text is; a plain one is a document of the packing check."""
    if not text.startswith("["):
        return _CHECKED, text
    query, document = from_json(text)
    return query, document


def _as_vectors(event: Scores) -> Vectors:
    data = pack([score] for score in event.scores)
    return Vectors(index=event.index, count=len(event.scores), dimension=1, data=data)


def _as_scores(event: Vectors, top_n: int | None) -> Scores:
    """The scores in rows of one number, with the digits that a float32 holds."""
    scores = tuple(float(f"{score:.7g}") for (score,) in unpack(event.data, 1))
    return Scores(index=event.index, scores=scores, top_n=top_n)


@contextmanager
def _renamed(ours: str, theirs: str) -> Iterator[None]:
    """Raise a BackendError with the other side's name for the field at its start."""
    try:
        yield
    except BackendError as error:
        if not error.message.startswith(ours):
            raise
        message = theirs + error.message.removeprefix(ours)
        raise copied(error, message, is_echo=error.is_echo) from error
