"""One backend over several OpenAI-shaped servers, each with one model at its own address.

Models and addresses are configured (`declarations.py`): such servers report nothing. Requests go
to the address of their model, through a `RerankingOpenAI` adapter each with the `generic` dialect.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendError,
    BadEndpoint,
    ModelMissing,
)
from contract.events import Delta, Done, Phase, Scores, Vectors
from contract.features import Feature
from contract.rerank import RerankRequest
from contract.roster import ModelReport, ModelTrait
from workers.backends.declarations import DeclaredEndpoint
from workers.backends.http.connections import HttpTransport
from workers.backends.openai.dialects import GENERIC, generic
from workers.backends.openai.reranking import RerankingOpenAI
from workers.backends.protocols import Stream, ungranted

_NO_LIST: Final = frozenset({404, 405})
_KINDS: Final[tuple[ModelTrait, ...]] = ("chat", "embed", "rerank")


class DeclaredEndpoints:
    """The configured endpoints of one backend; routes each request by its model."""

    accepts_image_urls: Final = GENERIC.image_urls

    def __init__(
        self,
        name: str,
        endpoints: Sequence[DeclaredEndpoint],
        *,
        idle_s: float = 120.0,
        transport: HttpTransport | None = None,
    ) -> None:
        """Every endpoint has its own connections and key."""
        self.name = name
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._adapters = {
            endpoint.name: RerankingOpenAI(
                name,
                endpoint.url,
                generic(endpoint.url, endpoint.thinking),
                key=endpoint.key.get_secret_value() if endpoint.key else None,
                idle_s=idle_s,
                transport=transport,
            )
            for endpoint in endpoints
        }

    @property
    def grants(self) -> frozenset[Feature]:
        """The features of any endpoint; `chat` reports those that its endpoint ignores."""
        return frozenset[Feature]().union(*(it.grants for it in self._adapters.values()))

    async def check(self) -> str | None:
        """None while one address responds; else raises the error of the first."""
        errors = await asyncio.gather(*(_error_of(it) for it in self._adapters.values()))
        if errors and all(errors):
            raise next(error for error in errors if error)
        return None

    async def models(self) -> Sequence[ModelReport]:
        """The configured models, including those of addresses that do not respond."""
        return [_report(endpoint) for endpoint in self._endpoints.values()]

    async def aclose(self) -> None:
        """Close every connection."""
        for adapter in self._adapters.values():
            await adapter.aclose()

    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST /chat/completions at the address of the model; raises ModelMissing."""
        endpoint, adapter = self._found(request.model)
        sent = request.model_copy(update={"model": endpoint.id})
        missing = ungranted(sent, adapter) if adapter.grants != self.grants else ()
        async with aclosing(adapter.chat(sent)) as events:
            async for event in events:
                if isinstance(event, Done):
                    ignored = (*event.ignored, *missing)
                    yield event.model_copy(update={"ignored": ignored})
                else:
                    yield event

    def max_texts(self, model: str) -> int:  # noqa: ARG002 - the same at every address
        """The most texts of one request."""
        return GENERIC.embed_batch

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST /embeddings at the address of the model; raises ModelMissing."""
        endpoint, adapter = self._found(request.model)
        sent = request.model_copy(update={"model": endpoint.id})
        async with aclosing(adapter.embed(sent)) as events:
            async for event in events:
                yield event

    async def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """POST /rerank at the address of the model; raises ModelMissing."""
        endpoint, adapter = self._found(request.model)
        sent = request.model_copy(update={"model": endpoint.id})
        async with aclosing(adapter.rerank(sent)) as events:
            async for event in events:
                yield event

    def _found(self, model: str) -> tuple[DeclaredEndpoint, RerankingOpenAI]:
        """The endpoint with this name, else the first one with this id; raises ModelMissing."""
        names = [model] if model in self._endpoints else []
        names += [name for name, endpoint in self._endpoints.items() if endpoint.id == model]
        if not names:
            known = ", ".join(self._endpoints)
            raise ModelMissing(f"no endpoint of {self.name} has the model {model!r}; of: {known}")
        return self._endpoints[names[0]], self._adapters[names[0]]


async def _error_of(adapter: RerankingOpenAI) -> BackendError | None:
    """The error of a server; None if it responds, even without a model list."""
    try:
        await adapter.check()
    except BadEndpoint as error:
        return None if error.upstream_status in _NO_LIST else error
    except BackendError as error:
        return error
    return None


def _report(endpoint: DeclaredEndpoint) -> ModelReport:
    traits, length = endpoint.capabilities, endpoint.context_length
    return ModelReport(
        name=endpoint.name,
        traits=traits,
        lacks=tuple(kind for kind in _KINDS if kind not in traits) if traits else (),
        context_length=int(length / endpoint.token_modifier) if length else None,
        max_output_tokens=endpoint.max_output_tokens,
        dimension=endpoint.dimension,
    )
