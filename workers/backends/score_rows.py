"""Rerank: documents are split into batches, and the scores of each response are checked.

Invariant: all batches together give one score per document, in order, all finite.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import isfinite
from typing import Any, Final

from contract.errors import BadAnswer, NotFinite
from contract.events import Scores, Usage
from contract.rerank import RerankRequest
from workers.backends.vector_rows import batches

_FIELDS: Final = ("relevance_score", "score")
"""Names of a score: Cohere's and Jina's, and TEI's."""


class ScoreRows:
    """Makes a `Scores` event of each batch of one request."""

    def __init__(self, request: RerankRequest) -> None:
        """Begin before the first document."""
        self._request = request
        self._count = 0
        self._tokens: int | None = None

    def _spend(self, usage: Mapping[str, int | None]) -> None:
        tokens = usage.get("prompt_tokens")
        tokens = usage.get("total_tokens") if tokens is None else tokens
        if tokens is not None:
            self._tokens = (self._tokens or 0) + tokens

    @property
    def usage(self) -> Usage | None:
        """The tokens of all batches; None if they were never reported."""
        return None if self._tokens is None else Usage(prompt_tokens=self._tokens)

    def add(self, scores: Sequence[Any], answer: Mapping[str, Any]) -> Scores:
        """The event of the next scores; `answer`, the whole response, may have their usage.

        Raises BadAnswer, and NotFinite for NaN or infinity.
        """
        self._spend(answer.get("usage") or {})
        for at, score in enumerate(scores, self._count):
            if isinstance(score, bool) or not isinstance(score, int | float | None):
                raise BadAnswer(f"documents[{at}]: its score is not a number")
            if score is None or not isfinite(score):  # llama-server writes null for NaN
                raise NotFinite(f"documents[{at}]: its score is not finite (NaN or infinite)")
        first, self._count = self._count, self._count + len(scores)
        return Scores(index=first, scores=tuple(map(float, scores)), top_n=self._request.top_n)


def by_query(request: RerankRequest, limit: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Neighbouring documents with the same query, at most `limit` of them, and that query."""
    for query, pairs in groupby(request.pairs, key=lambda pair: pair[0]):
        for documents in batches([document for _, document in pairs], limit):
            yield query, documents


def pairs_in_batches(
    pairs: Sequence[tuple[str, str]], limit: int
) -> Iterator[Sequence[tuple[str, str]]]:
    """Neighbouring pairs, at most `limit` of them, and of a bounded size."""
    start = 0
    for whole in batches([query + document for query, document in pairs], limit):
        yield pairs[start : start + len(whole)]
        start += len(whole)


def in_order(answer: Mapping[str, Any], expected: int) -> list[Any]:
    """The scores of a response by the index of their document; raises BadAnswer.

    Servers return the best first. `expected` is the number of documents that were sent.
    """
    items = answer.get("results") or answer.get("data") or ()
    found = {
        _index(item): next((item[name] for name in _FIELDS if name in item), "missing")
        for item in items
        if isinstance(item, dict)
    }
    if len(items) != expected or set(found) != set(range(expected)):
        raise BadAnswer(
            f"the backend answered {len(items)} scores for {expected} documents, or numbered them"
            " otherwise than from 0 up"
        )
    return [found[at] for at in range(expected)]


def _index(item: Mapping[str, Any]) -> int | None:
    index = item.get("index")
    return index if type(index) is int else None
