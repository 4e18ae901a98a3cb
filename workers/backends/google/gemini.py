"""The adapter for the Gemini API of generativelanguage.googleapis.com.

Chat, embeddings, images and models. Source: googleapis/python-genai `models.py`, `types.py`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendStalled,
    ModelMissing,
    Refused,
    ServerFault,
    TruncatedStream,
)
from contract.events import Delta, Done, Image, Phase, Usage, Vectors
from contract.features import Feature
from contract.images import ImageRequest
from contract.roster import ModelReport
from workers.backends.call_arguments import translated
from workers.backends.google import catalog, images, shapes
from workers.backends.google import requests as wire
from workers.backends.google.chunks import ChunkReader, GeminiChunks
from workers.backends.http.client import QUICK_S, BackendClient, BackendResponse, Signer
from workers.backends.http.connections import HttpTransport
from workers.backends.http.decoders import MOST_TEXT_BYTES
from workers.backends.http.json_text import size_of_vectors
from workers.backends.protocols import Stream
from workers.backends.vector_rows import VectorRows, batches, unit

EMBED_BATCH: Final = 100
"""Texts of one request; more are a 400 (python-genai 2.19, `models.py`)."""
_GRANTS: Final[frozenset[Feature]] = frozenset({
    "task",
    "frequency_penalty", "presence_penalty", "messages[].thinking", "messages[].extra_content",
    "messages[].tool_calls[].extra_content", "messages[].tool_name",
})  # fmt: skip
MAX_PAGES: Final = 20
"""Pages of a list that are read; more are an endless loop."""


class Gemini:
    """The Gemini API with one key."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        key: str | None = None,
        idle_s: float = 120.0,
        signer: Signer | None = None,
        transport: HttpTransport | None = None,
    ) -> None:
        """`url` includes the version, as in https://generativelanguage.googleapis.com/v1beta.

        `key` is sent as x-goog-api-key, `signer` signs each request; `idle_s` is the idle timeout.
        """
        self.name = name
        self._idle_s = idle_s
        headers: Mapping[str, str] = {"x-goog-api-key": key} if key else {}
        self._client = BackendClient(
            url, headers=headers, secrets=(key,) if key else (), signer=signer, transport=transport
        )

    @property
    def grants(self) -> frozenset[Feature]:
        """The supported features: two penalties, and what messages hold of earlier answers."""
        return _GRANTS

    async def check(self) -> str | None:
        """GET one page of models; no version is reported."""
        await self._client.json("GET", "/models?pageSize=1", limit_s=QUICK_S)
        return None

    async def models(self) -> Sequence[ModelReport]:
        """GET /models, all pages."""
        return [catalog.gemini(item) async for item in self._listed("/models", "models")]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST `:streamGenerateContent`; image URLs must have been downloaded before.

        Raises NotSupported and BackendError; TruncatedStream without a finish reason.
        """
        body = await translated(wire.to_chat, request)
        chunks = GeminiChunks()
        path = self._path(request.model, "streamGenerateContent") + "?alt=sse"
        async with (
            self._client.open(
                "POST", path, body.fields, accept="text/event-stream", pooled=True
            ) as answer,
            aclosing(self._chunks(answer)) as parsed,
        ):
            try:
                async for chunk in parsed:
                    delta = chunks.delta(shapes.CHUNK.read(chunk))
                    if delta is not None:
                        if delta.has_words:
                            answer.start_idle_timeout(self._idle_s)
                        yield delta
            except (BackendStalled, ServerFault, TruncatedStream):
                if not chunks.has_finished:
                    raise  # after the finish reason the response is complete
        for event in chunks.end(body.ignored):
            yield event

    def max_texts(self, model: str) -> int:  # noqa: ARG002 - Vertex distinguishes models
        """The most texts of one request."""
        return EMBED_BATCH

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST `:batchEmbedContents` in batches of `max_texts`."""
        rows = VectorRows(request.dimensions)
        path = self._path(request.model, "batchEmbedContents")
        model = path[1:].rpartition(":")[0]
        for texts in batches(request.input, EMBED_BATCH):
            body = wire.to_embed(request, model, texts)
            answer = await self._client.json(
                "POST", path, body, shape=shapes.EMBEDDINGS, pooled=True,
                size=size_of_vectors(len(texts)),
            )  # fmt: skip
            rows.spend((answer.get("usageMetadata") or {}).get("promptTokenCount"))
            found = [item.get("values") for item in answer.get("embeddings") or ()]
            if request.dimensions is not None:
                # gemini-embedding-001 does not normalize shortened vectors.
                found = [unit(row) for row in found]
            yield rows.add(found, len(texts))
        yield Done(usage=rows.usage, ignored=self._ignored_fields(request))

    async def image(self, request: ImageRequest) -> Stream[Phase | Image | Done]:
        """POST `:generateContent`, once per image; raises Refused for a safety block."""
        body = images.to_image(request)
        total: Usage | None = None
        path = self._path(request.model, "generateContent")
        for index in range(request.count):
            answer = await self._client.json("POST", path, body.fields, shape=shapes.CHUNK)
            found, spent = images.from_image(answer, index)
            total = images.added(total, spent)
            if isinstance(found, str):
                raise Refused(found)
            yield found
        yield Done(usage=total, ignored=body.ignored)

    def _path(self, model: str, method: str) -> str:
        named = model if "/" in model else f"models/{model}"
        return f"/{resource(named)}:{method}"

    def _ignored_fields(self, request: EmbedRequest) -> tuple[str, ...]:
        """Fields of an embedding request that this API cannot express."""
        is_set = {
            "truncate": request.truncate is not None,
            "keep_alive_s": request.keep_alive_s is not None,
        }
        return tuple(name for name, value in is_set.items() if value)

    async def _listed(self, path: str, field: str) -> AsyncGenerator[dict[str, Any], None]:
        token = ""
        for _ in range(MAX_PAGES):
            query = f"?pageSize=1000{f'&pageToken={quote(token)}' if token else ''}"
            page = await self._client.json("GET", path + query, limit_s=QUICK_S, shape=shapes.PAGE)
            for item in page.get(field) or ():
                yield item
            token = page.get("nextPageToken") or ""
            if not token:
                return

    async def _chunks(self, answer: BackendResponse) -> AsyncGenerator[dict[str, Any], None]:
        """Yield parsed chunks; raises the BackendError of an error chunk."""
        reader = ChunkReader(self._client.secrets)
        if answer.content_type == "application/json":
            for chunk in reader.whole(await answer.whole(MOST_TEXT_BYTES)):
                yield chunk
            return
        async with aclosing(answer.packets()) as packets:
            async for packet in packets:
                for chunk in reader.feed(packet):
                    yield chunk
        for chunk in reader.flush():
            yield chunk


def resource(name: str) -> str:
    """The quoted path of a model name; raises ModelMissing for `..` and empty steps."""
    if any(step in {"", ".", ".."} for step in name.split("/")):
        raise ModelMissing(f"model {name!r} not found: not a valid Google model name")
    return quote(name)
