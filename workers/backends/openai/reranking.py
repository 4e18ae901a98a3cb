"""Servers that score documents by a query, beside what an OpenAI-shaped server does.

Sources of the shapes: llama.cpp `tools/server/README.md` (POST /v1/rerank); vLLM
`entrypoints/pooling/score` (/rerank, /score); Jina's and Cohere's API (`results`,
`relevance_score`), which LocalAI and Infinity follow; Voyage's (`data`).
"""

from typing import Any

from typing_extensions import override

from contract.events import Done, Phase, Scores
from contract.rerank import RerankRequest
from workers.backends.http.missing_paths import needs_path
from workers.backends.openai import shapes
from workers.backends.openai.adapter import CountingOpenAI, OpenAI, OpenAIImages, SlottedOpenAI
from workers.backends.protocols import Stream
from workers.backends.score_rows import ScoreRows, by_query, in_order, pairs_in_batches


class RerankingOpenAI(OpenAI):
    """An OpenAI-shaped server that also reranks."""

    async def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """POST /rerank in batches of documents; raises BackendError.

        The wire has one query a request, so that pairs with different queries are sent one after
        another.
        """
        rows, model = ScoreRows(request), self._names.own(request.model)
        for query, documents in by_query(request, self.dialect.rerank_batch):
            body = {
                "model": model,
                "query": query,
                "documents": documents,
                "top_n": len(documents),
                **self._cut(request),
            }
            answer = await self._scored("/rerank", body)
            yield rows.add(in_order(answer, len(documents)), answer)
        yield Done(usage=rows.usage, ignored=self._ignored(request))

    async def _scored(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with needs_path(self.name, self._client.url, path):
            return await self._client.json(
                "POST", path, body, shape=shapes.SCORES, pooled=self.dialect.pools_prompts
            )

    def _cut(self, request: RerankRequest) -> dict[str, Any]:
        """VLLM's field that cuts a long document; -1 is the model's own limit."""
        is_cut = self.dialect.truncate == "field" and request.truncate is not False
        return {"truncate_prompt_tokens": -1} if is_cut else {}

    def _ignored(self, request: RerankRequest) -> tuple[str, ...]:
        can_cut = self.dialect.truncate == "field"
        return () if can_cut or request.truncate is None else ("truncate",)


class LlamaServer(SlottedOpenAI, RerankingOpenAI):
    """llama-server of one model."""


class Vllm(CountingOpenAI, RerankingOpenAI):
    """vLLM, which scores pairs with different queries in one request."""

    def max_pairs(self, model: str) -> int:  # noqa: ARG002 - the same for every model
        """The most pairs of one request."""
        return self.dialect.rerank_batch

    @override
    async def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """POST /score with a query for each document; raises BackendError."""
        rows, model = ScoreRows(request), self._names.own(request.model)
        for pairs in pairs_in_batches(request.pairs, self.dialect.rerank_batch):
            body = {
                "model": model,
                "text_1": [query for query, _ in pairs],
                "text_2": [document for _, document in pairs],
                **self._cut(request),
            }
            answer = await self._scored("/score", body)
            yield rows.add(in_order(answer, len(pairs)), answer)
        yield Done(usage=rows.usage, ignored=self._ignored(request))


class RerankingOpenAIImages(OpenAIImages, RerankingOpenAI):
    """A server that reranks and makes images."""
