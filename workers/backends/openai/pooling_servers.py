"""Servers of encoders, which embed and rerank and never chat: TEI and Infinity.

Sources: huggingface/text-embeddings-inference `router/src/http/types.rs` (Info, RerankRequest,
Rank; /v1/embeddings is OpenAI's); michaelfeil/infinity `infinity_server.py` and
`pymodels.py` (/models with `capabilities`, /embeddings, /rerank).
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

from typing_extensions import override

from contract.embeddings import EmbedRequest
from contract.events import Done, Phase, Scores, Vectors
from contract.features import Feature
from contract.rerank import RerankRequest
from contract.roster import ModelReport
from workers.backends.http.client import QUICK_S, BackendClient
from workers.backends.http.connections import HttpTransport
from workers.backends.http.missing_paths import needs_path
from workers.backends.openai import catalogs, shapes
from workers.backends.openai.dialects import INFINITY, TEI, Dialect
from workers.backends.openai.reranking import RerankingOpenAI
from workers.backends.protocols import Stream
from workers.backends.score_rows import ScoreRows, by_query, in_order

_TEI_BATCH: Final = 32
"""Its limit of texts by default (`--max-client-batch-size`)."""


class Infinity:
    """Infinity: several models, each with its capabilities."""

    dialect: Dialect = INFINITY

    def __init__(
        self,
        name: str,
        url: str,
        *,
        key: str | None = None,
        idle_s: float = 120.0,
        transport: HttpTransport | None = None,
    ) -> None:
        """`url` is the base that `/embeddings` is appended to; `key` is sent as a bearer token."""
        self.name = name
        self._client = BackendClient(url, key=key, transport=transport)
        self._server = RerankingOpenAI(
            name, url, self.dialect, key=key, idle_s=idle_s, transport=transport
        )

    @property
    def grants(self) -> frozenset[Feature]:
        """The features of the dialect."""
        return self.dialect.grants

    async def check(self) -> str | None:
        """GET /health; it does not report its version."""
        return await self._server.check()

    async def models(self) -> Sequence[ModelReport]:
        """GET /models."""
        listing = await self._client.json(
            "GET", "/models", limit_s=QUICK_S, shape=shapes.ENCODER_LIST
        )
        return catalogs.infinity(listing)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._server.aclose()
        await self._client.aclose()

    def max_texts(self, model: str) -> int:
        """The most texts of one embedding request."""
        return self._server.max_texts(model)

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST /embeddings; raises BackendError."""
        async with aclosing(self._server.embed(request)) as events:
            async for event in events:
                yield event

    async def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """POST /rerank; raises BackendError."""
        async with aclosing(self._server.rerank(request)) as events:
            async for event in events:
                yield event


class Tei(Infinity):
    """Text Embeddings Inference: one model, which embeds or reranks."""

    dialect = TEI

    def __init__(self, name: str, url: str, **options: Any) -> None:
        """As `Infinity`; `url` ends with /v1, where its embeddings are."""
        super().__init__(name, url, **options)
        root = url.rstrip("/").removesuffix("/v1")
        key, transport = options.get("key"), options.get("transport")
        self._root = BackendClient(root, key=key, transport=transport)
        self._batch = _TEI_BATCH

    @override
    async def check(self) -> str | None:
        """GET /info: the version."""
        version: str | None = (await self._info()).get("version")
        return version

    @override
    async def models(self) -> Sequence[ModelReport]:
        """GET /info: the one model, and what it is for."""
        return [catalogs.tei(await self._info())]

    @override
    async def aclose(self) -> None:
        """Close every connection."""
        await super().aclose()
        await self._root.aclose()

    @override
    def max_texts(self, model: str) -> int:
        """The limit that the server reports, 32 by default."""
        return min(self._batch, super().max_texts(model))

    @override
    async def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """POST /rerank with `texts`; the response is a list. Raises BackendError."""
        rows = ScoreRows(request)
        for query, texts in by_query(request, self._batch):
            body = {"query": query, "texts": texts, "truncate": request.truncate is not False}
            with needs_path(self.name, self._root.url, "/rerank"):
                answer = await self._root.json(
                    "POST", "/rerank", body, shape=shapes.SCORES, pooled=True
                )
            yield rows.add(in_order(answer, len(texts)), answer)
        yield Done(usage=rows.usage)

    async def _info(self) -> dict[str, Any]:
        info = await self._root.json("GET", "/info", limit_s=QUICK_S, shape=shapes.TEI_INFO)
        self._batch = info.get("max_client_batch_size") or _TEI_BATCH
        return info
