"""The adapter for OpenAI-shaped HTTP: llama-server, LM Studio, vLLM, OpenAI, compatible servers.

Servers differ by a `Dialect` row (dialects.py), not by a class. `requests.py` builds the bodies,
`chunks.py` reads the responses, `catalogs.py` the model lists. Source of the wire format:
openai/openai-openapi.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from typing_extensions import override

from contract.chat import ChatRequest, CountRequest
from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendError,
    BackendStalled,
    BadAnswer,
    BadEndpoint,
    NotSupported,
    ServerFault,
    TruncatedStream,
)
from contract.events import Delta, Details, Done, Image, Phase, Vectors
from contract.features import Feature
from contract.images import ImageRequest
from contract.roster import ModelReport, ModelTrait
from workers.backends.http.client import QUICK_S, BackendClient, BackendResponse, OpenResponse
from workers.backends.http.connections import HttpTransport
from workers.backends.http.decoders import BARE, ERROR, MESSAGE, ImageSse, Sse
from workers.backends.http.error_table import error_from, error_in, unwrap_array
from workers.backends.http.json_text import StreamJson, size_of_vectors
from workers.backends.http.missing_paths import needs_path
from workers.backends.openai import catalogs, shapes
from workers.backends.openai import requests as wire
from workers.backends.openai.chunks import OpenAIChunks, plain_text
from workers.backends.openai.dialects import Dialect
from workers.backends.openai.images import Images, to_image
from workers.backends.openai.naming import ModelNames, aliases_in
from workers.backends.openai.repeated_chunks import RepeatedChunks
from workers.backends.openai.requests import to_completion
from workers.backends.openai.shapes import IMAGES
from workers.backends.protocols import Stream
from workers.backends.shapes import ANYTHING, count, invalid_json
from workers.backends.vector_rows import VectorRows, batches, ordered, width

_PROMPT: Final = frozenset({"model", "messages", "tools", "tool_choice"})
"""Fields of a chat that its prompt depends on."""

AnyRequest = TypeVar("AnyRequest", ChatRequest, EmbedRequest, ImageRequest)
_Chunk = dict[str, Any] | str | None
"""A parsed chunk of a stream, or its text if it has nothing else; None is the end, `[DONE]`."""


MOST_SLOTS: Final = 4096
"""As many as a DSN may name. A worker has a job in hand for each."""


def _slots_of(props: Mapping[str, Any]) -> int:
    """The slots of GET /props; 0 if it names none."""
    return min(count(props.get("total_slots")) or 0, MOST_SLOTS)


class OpenAI:
    """One OpenAI-shaped server: chat, completions and embeddings."""

    chunk_reader: type[OpenAIChunks] = OpenAIChunks
    """The reader of its stream chunks."""

    def __init__(
        self,
        name: str,
        url: str,
        dialect: Dialect,
        *,
        key: str | None = None,
        idle_s: float = 120.0,
        headers: Mapping[str, str] | None = None,
        transport: HttpTransport | None = None,
    ) -> None:
        """`url` is the base that `/chat/completions` is appended to, as in http://box:8080/v1.

        `key` is sent as a bearer token, `headers` with every request; `idle_s` is the idle
        timeout in seconds after the first token.
        """
        self.name = name
        self.dialect = dialect
        self._idle_s = idle_s
        self._client = BackendClient(url, key=key, headers=headers, transport=transport)
        self._root = BackendClient(
            url.rstrip("/").removesuffix("/v1"), key=key, transport=transport
        )
        self._dimension: dict[str, int | None] = {}
        self._names = ModelNames()
        self._pooling: ModelTrait | None = None
        self._knows_pooling = False
        self._reranks: dict[str, bool] = {}

    async def prefills(self, model: str) -> bool:  # noqa: ARG002 - a server does it or does not
        """Whether the server is known to continue a trailing assistant message."""
        return self.dialect.prefill != "none"

    @property
    def grants(self) -> frozenset[Feature]:
        """The features of the dialect."""
        return self.dialect.grants

    @property
    def accepts_image_urls(self) -> bool:
        """Whether the server fetches the images of a message itself."""
        return self.dialect.image_urls

    async def check(self) -> str | None:
        """GET the health path of the dialect, or /models; return the version if reported."""
        if self.dialect.health_path is None:
            await self._client.json("GET", "/models", limit_s=QUICK_S)
            return None
        await self._root.json("GET", self.dialect.health_path, limit_s=QUICK_S)
        if self.dialect.version_path:
            answer = await self._root.json("GET", self.dialect.version_path, limit_s=QUICK_S)
            return str(answer["version"]) if "version" in answer else None
        props = await self._props() if self.dialect.catalog == "props" else {}
        self._learn(props)
        return str(props["build_info"]) if "build_info" in props else None

    def _learn(self, props: Mapping[str, Any]) -> None:
        """Take what GET /props has told."""

    async def slots(self) -> int | None:
        """The concurrent requests of the server: `total_slots` of GET /props (llama-server)."""
        props = await self._props() if self.dialect.catalog == "props" else {}
        return _slots_of(props) or None

    async def models(self) -> Sequence[ModelReport]:
        """GET /models, or the catalog of the dialect; names are public ones (naming.py)."""
        if self.dialect.catalog == "lmstudio":
            with suppress(BadEndpoint):  # before 0.4.0 there was no /api/v1
                return catalogs.lmstudio(
                    await self._root.json(
                        "GET", "/api/v1/models", limit_s=QUICK_S, shape=shapes.LM_STUDIO_MODEL_LIST
                    )
                )
        listing = await self._client.json(
            "GET", "/models", limit_s=QUICK_S, shape=shapes.MODEL_LIST
        )
        return self._names.shown(await self._reported(listing), aliases_in(listing))

    async def _reported(self, listing: dict[str, Any]) -> Sequence[ModelReport]:
        match self.dialect.catalog:
            case "props":
                names = [
                    item.get("id") for item in listing.get("data") or () if "status" not in item
                ]
                dimension = await self._dimension_of(str(names[0])) if names else None
                # A server that reranks has one number for each text as its vector.
                reranks = dimension is not None and await self._is_reranker(str(names[0]))
                return catalogs.llamacpp(listing, await self._props(), dimension, reranks=reranks)
            case "vllm":
                return catalogs.vllm(listing, await self._pooling_task())
            case "names":
                return catalogs.by_name(listing)
            case "plain" | "lmstudio":
                return catalogs.plain(listing)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        await self._root.aclose()

    def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST /chat/completions, or /completions for a request with a `prompt`.

        Raises NotSupported and BackendError; TruncatedStream for a stream without an end.
        """
        return self._chat(request, {})

    async def _chat(
        self, request: ChatRequest, more: Mapping[str, Any]
    ) -> Stream[Phase | Delta | Done]:
        is_raw = request.prompt is not None
        body = (to_completion if is_raw else wire.to_chat)(
            self._with_server_name(request), self.dialect
        )
        path = "/completions" if is_raw else "/chat/completions"
        chunks = self.chunk_reader()
        is_marked = False
        async with (
            self._post(
                path, {**body.fields, **more}, "text/event-stream", is_prompt=True
            ) as answer,
            aclosing(self._chunks(answer, RepeatedChunks(plain_text))) as packets,
        ):
            try:
                async for items in packets:
                    is_marked = items[-1] is None
                    for item in items:
                        event = None if item is None else chunks.event(item)
                        if event is None:
                            continue
                        if isinstance(event, Delta) and event.has_words:
                            answer.start_idle_timeout(self._idle_s)
                        yield event
            except (BackendStalled, ServerFault, TruncatedStream):
                if not chunks.has_finished:
                    raise  # after the finish_reason only the usage is missing
        yield chunks.done(is_marked=is_marked).model_copy(update={"ignored": body.ignored})

    def _post(self, path: str, body: Any, accept: str, *, is_prompt: bool = False) -> OpenResponse:
        """Open the response to a POST; raises NotSupported if the server has no such path."""
        pooled = is_prompt and self.dialect.pools_prompts
        return self._client.open(
            "POST", path, body, accept=accept, pooled=pooled, backend=self.name
        )

    def max_texts(self, model: str) -> int:  # noqa: ARG002 - the server's, for every model
        """The most texts of one request."""
        return self.dialect.embed_batch

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST /embeddings in batches of `max_texts`; token ids are sent as arrays."""
        body = wire.to_embed(self._with_server_name(request), self.dialect)
        rows = VectorRows(request.dimensions)
        inputs: Sequence[str | tuple[int, ...]] = request.input or request.tokens
        for texts in batches(inputs, self.dialect.embed_batch):
            with needs_path(self.name, self._client.url, "/embeddings"):
                answer = await self._client.json(
                    "POST",
                    "/embeddings",
                    body.fields | {"input": texts},
                    shape=shapes.EMBEDDINGS,
                    pooled=self.dialect.pools_prompts,
                    size=size_of_vectors(len(texts)),
                )
            rows.spend((answer.get("usage") or {}).get("prompt_tokens"))
            yield rows.add(ordered(answer.get("data") or ()), len(texts))
        yield Done(usage=rows.usage, ignored=body.ignored)

    def _with_server_name(self, request: AnyRequest) -> AnyRequest:
        """The request with the server's own model name."""
        own = self._names.own(request.model)
        return request if own == request.model else request.model_copy(update={"model": own})

    async def _chunks(
        self,
        answer: BackendResponse,
        repeated: RepeatedChunks | None = None,
        decoders: type[Sse] = Sse,
    ) -> AsyncGenerator[list[_Chunk], None]:
        """Yield the parsed chunks of each packet, and at the end None for `[DONE]`.

        With `repeated`, of some the text alone. `decoders` says how large one may be.

        Raises the error of an error chunk, after the chunks before it.
        """
        texts = StreamJson()
        if answer.content_type == "application/json":
            # An error with status 200 (LM Studio), or a response that was not streamed.
            raw = await answer.whole(decoders.limit_bytes)
            yield [self._parsed(texts, raw, is_cut=True)[-1]]
            return
        decoder = decoders()
        async with aclosing(answer.packets()) as packets:
            async for packet in packets:
                for chunks in self._of_events(texts, decoder.feed(packet), repeated):
                    yield chunks
                    if chunks[-1] is None:
                        return
        for chunks in self._of_events(texts, decoder.flush(), is_cut=True):
            yield chunks

    def _of_events(
        self,
        texts: StreamJson,
        events: Sequence[tuple[str, bytes]],
        repeated: RepeatedChunks | None = None,
        *,
        is_cut: bool = False,
    ) -> Iterator[list[_Chunk]]:
        """Yield the chunks of these events together; at most to `[DONE]`, or an error (raised)."""
        found: list[_Chunk] = []
        try:
            for name, data in events:
                known = None if name != MESSAGE or texts.has_half else repeated
                if known is not None and (text := known.text(data)) is not None:
                    found.append(text)
                    continue
                found += self._parsed(texts, data, name, is_cut=is_cut)
                if found[-1] is None:
                    break
                if known is not None:
                    known.learn(data, found[-1])
        except BackendError:
            if found:
                yield found
            raise
        if found:
            yield found

    def _parsed(
        self, texts: StreamJson, data: bytes, name: str = MESSAGE, *, is_cut: bool = False
    ) -> Sequence[_Chunk]:
        """The JSON objects of an event; `is_cut`: the stream ended before its blank line."""
        if data == b"[DONE]":
            return (*texts.rest(), None)
        try:
            chunks = texts.read(data)
        except ValueError as error:
            if name not in {ERROR, BARE}:
                raise invalid_json(error, is_cut=is_cut) from None
            # The router of llama-server appends "proxy error: ..." when its child dies.
            raise error_from(0, data, secrets=self._client.secrets) from None
        last = chunks[-1]
        if name == MESSAGE and type(last) is dict and len(chunks) == 1 and not last.get("error"):
            return chunks
        found = unwrap_array(last)
        if name == ERROR or (isinstance(found, dict) and found.get("error")):
            raise error_in(found, secrets=self._client.secrets)
        return [ANYTHING.read(chunk) for chunk in chunks]

    async def _props(self) -> dict[str, Any]:
        try:
            return await self._root.json("GET", "/props", limit_s=QUICK_S, shape=shapes.PROPS)
        except BackendError:
            return {}

    async def _pooling_task(self) -> ModelTrait | None:
        """What the pooling model of this vLLM does; None for a model that chats.

        The OpenAPI schema has the paths of the model's tasks only.
        """
        if not self._knows_pooling:
            try:
                schema = await self._root.json(
                    "GET", "/openapi.json", limit_s=QUICK_S, shape=shapes.PATHS
                )
            except BackendError:
                return None
            self._pooling = catalogs.vllm_task(schema.get("paths") or {})
            self._knows_pooling = True
        return self._pooling

    async def _is_reranker(self, model: str) -> bool:
        """Whether a llama-server was started with `--reranking`; else its status is 501."""
        if model not in self._reranks:
            body = {"model": model, "query": "a", "documents": ["a"]}
            try:
                await self._client.json("POST", "/rerank", body, limit_s=QUICK_S)
            except (NotSupported, BadEndpoint):
                self._reranks[model] = False
            except BackendError:
                return False
            else:
                self._reranks[model] = True
        return self._reranks[model]

    async def _dimension_of(self, model: str) -> int | None:
        """Width of a llama-server's vectors; None if it was started without `--embeddings`.

        No list reports it, so one letter is embedded, once: status 501 means no embeddings.
        """
        if model not in self._dimension:
            try:
                answer = await self._client.json(
                    "POST",
                    "/embeddings",
                    {"model": model, "input": "a"},
                    limit_s=QUICK_S,
                    shape=shapes.EMBEDDINGS,
                    pooled=self.dialect.pools_prompts,
                )
                vectors = ordered(answer.get("data") or ())
                self._dimension[model] = width(vectors[0]) if vectors else None
            except NotSupported:
                self._dimension[model] = None
            except BackendError:
                return None
        return self._dimension[model]


class OpenAIImages(OpenAI):
    """An OpenAI-shaped server that also has /images/generations and /images/edits."""

    async def image(self, request: ImageRequest) -> Stream[Phase | Image | Done]:
        """POST /images/generations, or /images/edits for a request with an image."""
        body = to_image(self._with_server_name(request), self.dialect.type)
        path = "/images/edits" if request.image else "/images/generations"
        images = Images(request)
        async with (
            self._post(path, body.content, body.accept) as answer,
            aclosing(self._chunks(answer, decoders=ImageSse)) as items,
        ):
            async for packet in items:
                for item in packet:
                    parsed = item if isinstance(item, dict) else {}
                    for image in images.read(IMAGES.read(parsed)):
                        yield image
        yield Done(usage=images.usage(), ignored=body.ignored)


class CountingOpenAI(OpenAI):
    """An OpenAI-shaped server that also counts the tokens of a prompt: llama-server and vLLM.

    Sources: llama.cpp `tools/server/README.md` (POST /apply-template, POST /tokenize); vLLM
    `entrypoints/serve/tokenize/protocol.py` (TokenizeChatRequest).
    """

    async def count(self, request: CountRequest) -> Stream[Details | Done]:
        """POST /tokenize; llama-server's takes text, so its /apply-template makes that first.

        Raises BackendError.
        """
        whole = wire.to_chat(self._with_server_name(request.chat), self.dialect).fields
        body = {name: value for name, value in whole.items() if name in _PROMPT}
        if self.dialect.catalog == "props":
            templated = await self._root.json(
                "POST", "/apply-template", body, shape=shapes.TEMPLATED
            )
            text = templated.get("prompt")
            if text is None:
                raise BadAnswer("the backend's answer is not understood at prompt: missing")
            body = {"content": text, "add_special": True, "parse_special": True}
        else:
            body.pop("tool_choice", None)
        counted = await self._root.json("POST", "/tokenize", body, shape=shapes.TOKENIZED)
        tokens, count = counted.get("tokens"), counted.get("count")
        if count is None and tokens is None:
            raise BadAnswer("the backend's answer is not understood at tokens: missing")
        yield Details(details={"input_tokens": len(tokens or ()) if count is None else count})
        yield Done()


class SlottedOpenAI(CountingOpenAI):
    """llama-server with one model, whose slots keep their prompts.

    Source: llama.cpp `tools/server/README.md`: `id_slot`, `cache_prompt`, and `total_slots` of
    GET /props.
    """

    _prompt_slots = 0

    @property
    def prompt_slots(self) -> int:
        """How many the server has; 0 until it has told."""
        return self._prompt_slots

    @override
    def _learn(self, props: Mapping[str, Any]) -> None:
        self._prompt_slots = _slots_of(props)

    def chat_in(self, request: ChatRequest, slot: int) -> Stream[Phase | Delta | Done]:
        """Do what `chat` does, in this slot; the server waits while another request uses it."""
        return self._chat(request, {"id_slot": slot, "cache_prompt": True})
