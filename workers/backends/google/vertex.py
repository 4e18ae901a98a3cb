"""Vertex: Gemini's wire format at Google Cloud's addresses, with embeddings of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from typing_extensions import override

from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendError,
    NotSupported,
)
from contract.events import Done, Phase, Vectors
from contract.roster import ModelReport
from workers.backends.dsn import BackendConfig
from workers.backends.google import catalog
from workers.backends.google.gemini import Gemini, resource
from workers.backends.google.shapes import EMBEDDED
from workers.backends.protocols import Stream
from workers.backends.vectors import VectorRows, batches, unit

PREDICT_BATCH: Final = 250
PREDICT_CHARACTERS: Final = 20_000
"""A request may hold 20,000 tokens."""
ALONE: Final = "gemini-embedding-001"
"""Takes one text a request, as Google's page says."""
_MAY_NOT_LIST: Final = frozenset({403, 404})


class Vertex(Gemini):
    """A project at a location, or an API key (express mode)."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        project: str | None = None,
        location: str = "global",
        models: Sequence[str] = (),
        key: str | None = None,
        idle_s: float = 120.0,
        auth: httpx.Auth | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Without `project` it is express mode, with a `key`; `models` stand in for the list."""
        super().__init__(name, url, key=key, idle_s=idle_s, auth=auth, transport=transport)
        self._models = tuple(models)
        self._prefix = f"/projects/{project}/locations/{location}" if project else ""

    @override
    async def check(self) -> str | None:
        """Ask for the list of models; Vertex tells no version."""
        await self.models()
        return None

    @override
    async def models(self) -> Sequence[ModelReport]:
        """Google's own models, names only; those told to us if an account may use but not list."""
        try:
            listed = self._listed("/publishers/google/models", "publisherModels")
            return [catalog.vertex(item) async for item in listed]
        except BackendError as error:
            if not self._models or error.upstream_status not in _MAY_NOT_LIST:
                raise
            return [catalog.by_name(name) for name in self._models]

    @override
    def max_texts(self, model: str) -> int:
        """Texts a request: some models take one."""
        return 1 if _embeds_content(model) or model.endswith(ALONE) else PREDICT_BATCH

    @override
    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST `:predict`, or `:embedContent`, which takes one text at a time."""
        rows = VectorRows(request.dimensions)
        for texts in batches(request.input, self.max_texts(request.model), PREDICT_CHARACTERS):
            found, spent = await self._embedded(request, texts)
            rows.spend(spent)
            if request.dimensions is not None:
                found = [unit(row) for row in found]
            yield rows.add(found, len(texts))
        ignored = () if request.keep_alive_s is None else ("keep_alive_s",)
        yield Done(usage=rows.usage, ignored=ignored)

    async def _embedded(
        self, request: EmbedRequest, texts: Sequence[str]
    ) -> tuple[list[Any], int | None]:
        """The rows of some texts, and their tokens."""
        wishes: dict[str, Any] = {"autoTruncate": request.truncate}
        if request.dimensions is not None:
            wishes["outputDimensionality"] = request.dimensions
        if _embeds_content(request.model):
            content = {"parts": [{"text": texts[0]}]}
            path = self._path(request.model, "embedContent")
            asked = {"content": content, "embedContentConfig": wishes}
            answer = await self._client.json("POST", path, asked, shape=EMBEDDED, repeatable=True)
            spent = (answer.get("usageMetadata") or {}).get("promptTokenCount")
            return [(answer.get("embedding") or {}).get("values")], spent
        body = {"instances": [{"content": text} for text in texts], "parameters": wishes}
        path = self._path(request.model, "predict")
        answer = await self._client.json("POST", path, body, shape=EMBEDDED, repeatable=True)
        found = [item.get("embeddings") or {} for item in answer.get("predictions") or ()]
        counts = [(item.get("statistics") or {}).get("token_count") for item in found]
        spent = None if None in counts else sum(count or 0 for count in counts)
        return [item.get("values") for item in found], spent

    @override
    def _path(self, model: str, method: str) -> str:
        named = model if model.startswith("publishers/") else f"publishers/google/models/{model}"
        return f"{self._prefix}/{resource(named)}:{method}"


def _embeds_content(model: str) -> bool:
    """python-genai, `_transformers.py`, t_is_vertex_embed_content_model."""
    is_gemini = "gemini" in model and not model.endswith(ALONE)
    return is_gemini or "maas" in model


_HOW: Final = "vertex://PROJECT@LOCATION?credentials=/path/key.json, or vertex://:KEY@"


def vertex(config: BackendConfig) -> Vertex:
    """With a key in express mode; else for a project, by a file or the machine's credentials.

    Raises NotSupported if neither is named, or google-auth is not installed.
    """
    options = config.options
    if config.key is not None:
        key = config.key.get_secret_value()
        return Vertex(
            config.name, config.url, key=key, idle_s=config.idle_s, models=tuple(config.models)
        )
    if "project" not in options:
        raise NotSupported(f"backend {config.name!r}: type vertex needs a project, as in {_HOW}")
    try:
        from workers.backends.google.credentials import (  # noqa: PLC0415 - its extra is optional
            GoogleToken,
        )
    except ImportError as error:
        raise NotSupported(
            f"backend {config.name!r}: type vertex needs {error.name}; install the extra with"
            " pip install 'llm-fleet[vertex]'"
        ) from error
    path = options.get("credentials")
    return Vertex(
        config.name,
        config.url,
        project=options["project"],
        location=options.get("location", "global"),
        models=tuple(config.models),
        idle_s=config.idle_s,
        auth=GoogleToken(Path(path) if path else None, quota_project=options.get("quota_project")),
    )
