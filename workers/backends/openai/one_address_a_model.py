"""Self-hosted servers that speak OpenAI's HTTP, one address a model: one backend over all of them.

Which model stands where is configured (`declarations.py`), because such servers tell nothing.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import httpx

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendError,
    BadEndpoint,
    ModelMissing,
)
from contract.events import Delta, Done, Phase, Vectors
from contract.features import Feature
from contract.roster import ModelReport, ModelTrait
from workers.backends.declarations import DeclaredEndpoint
from workers.backends.feature_grants import ungranted
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import GENERIC, generic
from workers.backends.protocols import Stream

_NO_LIST: Final = frozenset({404, 405})
_KINDS: Final[tuple[ModelTrait, ...]] = ("chat", "embed")


class DeclaredEndpoints:
    """Several addresses; a request goes to the one that has its model."""

    accepts_image_urls: Final = GENERIC.image_urls

    def __init__(
        self,
        name: str,
        endpoints: Sequence[DeclaredEndpoint],
        *,
        idle_s: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Every endpoint has its own connections and its own key."""
        self.name = name
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._adapters = {
            endpoint.name: OpenAI(
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
        """What any of its servers has words for; what the one that is asked has not, it names."""
        return frozenset[Feature]().union(*(it.grants for it in self._adapters.values()))

    async def check(self) -> str | None:
        """Fine while one of the addresses answers; else the first one's error."""
        errors = await asyncio.gather(*(_trouble(it) for it in self._adapters.values()))
        if errors and all(errors):
            raise next(error for error in errors if error)
        return None

    async def models(self) -> Sequence[ModelReport]:
        """What is configured; one that does not answer now is listed all the same."""
        return [_report(endpoint) for endpoint in self._endpoints.values()]

    async def aclose(self) -> None:
        """Close every connection."""
        for adapter in self._adapters.values():
            await adapter.aclose()

    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST /chat/completions where the model is."""
        endpoint, adapter = self._found(request.model)
        told = request.model_copy(update={"model": endpoint.id})
        missing = ungranted(told, adapter) if adapter.grants != self.grants else ()
        async with aclosing(adapter.chat(told)) as events:
            async for event in events:
                if isinstance(event, Done):
                    ignored = (*event.ignored, *missing)
                    yield event.model_copy(update={"ignored": ignored})
                else:
                    yield event

    def max_texts(self, model: str) -> int:  # noqa: ARG002 - the same at every address
        """Texts a request."""
        return GENERIC.embed_batch

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST /embeddings where the model is."""
        endpoint, adapter = self._found(request.model)
        told = request.model_copy(update={"model": endpoint.id})
        async with aclosing(adapter.embed(told)) as events:
            async for event in events:
                yield event

    def _found(self, model: str) -> tuple[DeclaredEndpoint, OpenAI]:
        """By its label, else by its id: whoever wrote the id in both places means it."""
        names = [model] if model in self._endpoints else []
        names += [name for name, endpoint in self._endpoints.items() if endpoint.id == model]
        if not names:
            known = ", ".join(self._endpoints)
            raise ModelMissing(f"no endpoint of {self.name} has the model {model!r}; of: {known}")
        return self._endpoints[names[0]], self._adapters[names[0]]


async def _trouble(adapter: OpenAI) -> BackendError | None:
    """Why a server is not there; one that only has no list of models is."""
    try:
        await adapter.check()
    except BadEndpoint as error:
        return None if error.upstream_status in _NO_LIST else error
    except BackendError as error:
        return error
    return None


def _report(endpoint: DeclaredEndpoint) -> ModelReport:
    told, length = endpoint.capabilities, endpoint.context_length
    return ModelReport(
        name=endpoint.name,
        traits=told,
        lacks=tuple(kind for kind in _KINDS if kind not in told) if told else (),
        context_length=int(length / endpoint.token_modifier) if length else None,
        max_output_tokens=endpoint.max_output_tokens,
        dimension=endpoint.dimension,
    )
