"""The Gemini API of generativelanguage.googleapis.com: chat, embeddings, images, models."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

import httpx

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
from workers.backends.google import catalog, images, shapes
from workers.backends.google import requests as wire
from workers.backends.google.chunks import ChunkReader, GeminiChunks
from workers.backends.http.client import QUICK_S, BackendClient, BackendResponse
from workers.backends.protocols import Stream
from workers.backends.vectors import VectorRows, batches, unit

EMBED_BATCH: Final = 100
"""More are answered with 400 (python-genai 2.19, `models.py`)."""
PAGES: Final = 20
"""A list that has more pages than this turns in a circle."""


class Gemini:
    """One key to Google's API."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        key: str | None = None,
        idle_s: float = 120.0,
        auth: httpx.Auth | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`url` holds the version, as in https://generativelanguage.googleapis.com/v1beta."""
        self.name = name
        self._idle_s = idle_s
        headers: Mapping[str, str] = {"x-goog-api-key": key} if key else {}
        self._client = BackendClient(
            url, headers=headers, secrets=(key,) if key else (), auth=auth, transport=transport
        )

    @property
    def grants(self) -> frozenset[Feature]:
        """It has the two penalties and parts that are thoughts."""
        return frozenset({"frequency_penalty", "presence_penalty", "messages[].thinking"})

    async def check(self) -> str | None:
        """Ask for one model; it tells no version."""
        await self._client.json("GET", "/models?pageSize=1", limit_s=QUICK_S)
        return None

    async def models(self) -> Sequence[ModelReport]:
        """Every page of the list."""
        return [catalog.gemini(item) async for item in self._listed("/models", "models")]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST `:streamGenerateContent`; it fetches no pictures by URL (the run does)."""
        body = wire.to_chat(request)
        chunks = GeminiChunks()
        path = self._path(request.model, "streamGenerateContent") + "?alt=sse"
        async with (
            self._client.open(
                "POST", path, body.fields, accept="text/event-stream", repeatable=True
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
                    raise  # else all is said
        for event in chunks.end(body.ignored):
            yield event

    def max_texts(self, model: str) -> int:  # noqa: ARG002 - Vertex tells models apart
        """Texts a request."""
        return EMBED_BATCH

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST `:batchEmbedContents`, 100 texts at a time."""
        rows = VectorRows(request.dimensions)
        path = self._path(request.model, "batchEmbedContents")
        model = path[1:].rpartition(":")[0]
        for texts in batches(request.input, EMBED_BATCH):
            body = wire.to_embed(request, model, texts)
            answer = await self._client.json(
                "POST", path, body, shape=shapes.EMBEDDED, repeatable=True
            )
            rows.spend((answer.get("usageMetadata") or {}).get("promptTokenCount"))
            found = [item.get("values") for item in answer.get("embeddings") or ()]
            if request.dimensions is not None:
                # gemini-embedding-001 does not make the vectors it cuts unit vectors again.
                found = [unit(row) for row in found]
            yield rows.add(found, len(texts))
        yield Done(usage=rows.usage, ignored=self._not_embedded(request))

    async def image(self, request: ImageRequest) -> Stream[Phase | Image | Done]:
        """POST `:generateContent`, once an image: it makes one at a time."""
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

    def _not_embedded(self, request: EmbedRequest) -> tuple[str, ...]:
        """Wishes of an embedding that this API cannot express."""
        wishes = {
            "truncate": "truncate" in request.model_fields_set,
            "keep_alive_s": request.keep_alive_s is not None,
        }
        return tuple(name for name, is_wished in wishes.items() if is_wished)

    async def _listed(self, path: str, field: str) -> AsyncGenerator[dict[str, Any], None]:
        token = ""
        for _ in range(PAGES):
            query = f"?pageSize=1000{f'&pageToken={quote(token)}' if token else ''}"
            page = await self._client.json("GET", path + query, limit_s=QUICK_S, shape=shapes.PAGE)
            for item in page.get(field) or ():
                yield item
            token = page.get("nextPageToken") or ""
            if not token:
                return

    async def _chunks(self, answer: BackendResponse) -> AsyncGenerator[dict[str, Any], None]:
        """Parsed chunks; raises the BackendError that a chunk means."""
        reader = ChunkReader(self._client.secrets)
        if answer.content_type == "application/json":
            for chunk in reader.whole(await answer.read()):
                yield chunk
            return
        async with aclosing(answer.packets()) as packets:
            async for packet in packets:
                for chunk in reader.feed(packet):
                    yield chunk
        for chunk in reader.flush():
            yield chunk


def resource(name: str) -> str:
    """A model's name as a path; raises ModelMissing for one that would lead elsewhere."""
    if any(step in {"", ".", ".."} for step in name.split("/")):
        raise ModelMissing(f"model {name!r} not found: it is no name of Google's")
    return quote(name)
