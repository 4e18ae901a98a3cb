"""The adapter for Vertex AI: Gemini's wire format at Google Cloud's addresses.

Embeddings have their own methods (`:predict`, `:embedContent`). `vertex` builds the backend of a
configuration. Source: googleapis/python-genai `_api_client.py`, `models.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from contract.embeddings import EmbedRequest
from contract.errors import BackendError, NotSupported
from contract.events import Done, Phase, Vectors
from contract.features import Feature
from contract.roster import ModelReport
from workers.backends.dsn import BackendConfig
from workers.backends.google import catalog
from workers.backends.google.gemini import Gemini, resource
from workers.backends.google.shapes import EMBEDDINGS
from workers.backends.http.client import Signer
from workers.backends.http.connections import HttpTransport
from workers.backends.http.json_text import size_of_vectors
from workers.backends.protocols import Stream
from workers.backends.vector_rows import VectorRows, batches, unit

PREDICT_BATCH: Final = 250
PREDICT_CHARACTERS: Final = 20_000
"""Most characters of one request: the limit is 20,000 tokens."""
SINGLE_TEXT_MODEL: Final = "gemini-embedding-001"
"""Accepts one text per request (cloud.google.com, text embeddings API)."""
_LIST_REFUSED: Final = frozenset({403, 404})


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
        signer: Signer | None = None,
        transport: HttpTransport | None = None,
    ) -> None:
        """With `key` and without `project` it is express mode; `models` replace a refused list."""
        super().__init__(name, url, key=key, idle_s=idle_s, signer=signer, transport=transport)
        self._models = tuple(models)
        self._prefix = f"/projects/{project}/locations/{location}" if project else ""

    @property
    @override
    def grants(self) -> frozenset[Feature]:
        """As Gemini; tasks of embeddings are not sent."""
        return super().grants - {"task"}

    @override
    async def check(self) -> str | None:
        """GET the list of models; no version is reported."""
        await self.models()
        return None

    @override
    async def models(self) -> Sequence[ModelReport]:
        """Google's models, names only; the configured ones if the account may not list."""
        try:
            listed = self._listed("/publishers/google/models", "publisherModels")
            return [catalog.vertex(item) async for item in listed]
        except BackendError as error:
            if not self._models or error.upstream_status not in _LIST_REFUSED:
                raise
            return [catalog.by_name(name) for name in self._models]

    @override
    def max_texts(self, model: str) -> int:
        """The most texts of one request; some models accept one."""
        return 1 if _embeds_content(model) or model.endswith(SINGLE_TEXT_MODEL) else PREDICT_BATCH

    @override
    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST `:predict`, or `:embedContent` with one text each."""
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
        """The vectors of some texts, and their tokens."""
        options: dict[str, Any] = {"autoTruncate": request.truncate is not False}
        if request.dimensions is not None:
            options["outputDimensionality"] = request.dimensions
        if _embeds_content(request.model):
            content = {"parts": [{"text": texts[0]}]}
            path = self._path(request.model, "embedContent")
            sent = {"content": content, "embedContentConfig": options}
            answer = await self._client.json(
                "POST", path, sent, shape=EMBEDDINGS, pooled=True, size=size_of_vectors(1)
            )
            spent = (answer.get("usageMetadata") or {}).get("promptTokenCount")
            return [(answer.get("embedding") or {}).get("values")], spent
        body = {"instances": [{"content": text} for text in texts], "parameters": options}
        path = self._path(request.model, "predict")
        answer = await self._client.json(
            "POST", path, body, shape=EMBEDDINGS, pooled=True, size=size_of_vectors(len(texts))
        )
        found = [item.get("embeddings") or {} for item in answer.get("predictions") or ()]
        counts = [(item.get("statistics") or {}).get("token_count") for item in found]
        spent = None if None in counts else sum(count or 0 for count in counts)
        return [item.get("values") for item in found], spent

    @override
    def _path(self, model: str, method: str) -> str:
        named = model if model.startswith("publishers/") else f"publishers/google/models/{model}"
        return f"{self._prefix}/{resource(named)}:{method}"


def _embeds_content(model: str) -> bool:
    """Whether the model uses `:embedContent`.

    Source: python-genai, `_transformers.py`, t_is_vertex_embed_content_model.
    """
    is_gemini = "gemini" in model and not model.endswith(SINGLE_TEXT_MODEL)
    return is_gemini or "maas" in model


_EXAMPLES: Final = "vertex://PROJECT@LOCATION?credentials=/path/key.json, or vertex://:KEY@"


def vertex(config: BackendConfig) -> Vertex:
    """The backend of a configuration: express mode with a key, else a project with credentials.

    Credentials come from the file of the option `credentials`, else from the machine. Raises
    NotSupported without key and project, or if google-auth is not installed.
    """
    options = config.options
    if config.key is not None:
        key = config.key.get_secret_value()
        return Vertex(
            config.name, config.url, key=key, idle_s=config.idle_s, models=tuple(config.models)
        )
    if "project" not in options:
        raise NotSupported(
            f"backend {config.name!r}: type vertex needs a project, as in {_EXAMPLES}"
        )
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
        signer=GoogleToken(
            Path(path) if path else None, quota_project=options.get("quota_project")
        ),
    )
