"""The protocols of backends: `Backend`, and one protocol per capability.

A capability is a method: a backend that can embed has `embed`, and nothing else declares it.
Streams are async generators of events. The last item is a `Done`; a failure is raised as a
`contract.errors.BackendError`, never yielded. Closing the generator closes the connection.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar, get_args

# Before Python 3.12 `isinstance` with those of `typing` takes 8 to 20 us, some of which each job
# would pay; with these 0.3.
from typing_extensions import Protocol, runtime_checkable

from contract.chat import ChatRequest, CountRequest
from contract.embeddings import EmbedRequest
from contract.errors import NotSupported
from contract.events import Delta, Details, Done, Image, Phase, Progress, Scores, Vectors
from contract.features import REMEDIES, Feature, features_of
from contract.images import ImageRequest
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    LoadRequest,
    PullRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.requests import Request
from contract.rerank import RerankRequest
from contract.roster import Capability, ModelReport

Item = TypeVar("Item")
Stream = AsyncGenerator[Item, None]


@runtime_checkable
class Backend(Protocol):
    """One server, or one library in the process of the worker."""

    @property
    def name(self) -> str:
        """The configured name, as in `ollama`."""
        ...

    async def check(self) -> str | None:
        """Return the server's version, None if it does not report one.

        Raises BackendError if the server is not usable.
        """
        ...

    async def models(self) -> Sequence[ModelReport]:
        """Return a report for each model it can serve; raises BackendError."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


@runtime_checkable
class Chat(Protocol):
    """Generates chat completions."""

    def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """Stream the response: deltas, then `Done`; raises BackendError."""
        ...


@runtime_checkable
class CountTokens(Protocol):
    """Counts the tokens of a prompt with the model's own template and vocabulary."""

    def count(self, request: CountRequest) -> Stream[Details | Done]:
        """Yield `{"input_tokens": n}`; raises BackendError."""
        ...


@runtime_checkable
class Prefill(Protocol):
    """Reports whether its server continues a trailing assistant message instead of answering it."""

    async def prefills(self, model: str) -> bool:
        """Whether a response that was cut off can be continued exactly by sending it back.

        Raises BackendError if it must query the server and the request fails.
        """
        ...


@runtime_checkable
class Embed(Protocol):
    """Computes embeddings."""

    def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """Yield the vector of every text once, in order of `request.input`; raises BackendError."""
        ...


@runtime_checkable
class Rerank(Protocol):
    """Scores documents by a query."""

    def rerank(self, request: RerankRequest) -> Stream[Phase | Scores | Done]:
        """Yield a score for every document once, in order; raises BackendError."""
        ...


@runtime_checkable
class ScoresPairs(Protocol):
    """Scores pairs with different queries in one request, so that rerank jobs may share it."""

    def max_pairs(self, model: str) -> int:
        """The most pairs of one request for this model."""
        ...


@runtime_checkable
class LimitsEmbedBatch(Protocol):
    """Splits long inputs into several embedding requests to its server."""

    def max_texts(self, model: str) -> int:
        """The most texts of one request for this model."""
        ...


@runtime_checkable
class Pull(Protocol):
    """Downloads models."""

    def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """Download a model; totals in `Progress` are bytes of all digests seen so far."""
        ...


@runtime_checkable
class Delete(Protocol):
    """Deletes models."""

    def delete(self, request: DeleteRequest) -> Stream[Done]:
        """Delete a model; raises ModelMissing."""
        ...


@runtime_checkable
class ManageModels(Delete, Protocol):
    """Shows, creates, copies and deletes models."""

    def show(self, request: ShowRequest) -> Stream[Details | Done]:
        """Yield the server's details of a model; raises ModelMissing."""
        ...

    def create(self, request: CreateRequest) -> Stream[Progress | Done]:
        """Create a model from another."""
        ...

    def copy(self, request: CopyRequest) -> Stream[Done]:
        """Copy a model to a second name."""
        ...


@runtime_checkable
class SwapModels(Protocol):
    """Loads models into memory and unloads them."""

    def running(self) -> Stream[Details | Done]:
        """Yield `{"models": [...]}`, the models in memory."""
        ...

    def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """Load a model into memory; raises ModelMissing."""
        ...

    def unload(self, request: UnloadRequest) -> Stream[Done]:
        """Unload a model; `EVERY_MODEL` unloads all, where the backend supports that."""
        ...


@runtime_checkable
class GenerateImages(Protocol):
    """Generates images."""

    def image(self, request: ImageRequest) -> Stream[Phase | Progress | Image | Done]:
        """Stream the images, base64; previews have `partial` set."""
        ...


@runtime_checkable
class AcceptsImageUrls(Protocol):
    """Reports whether its server fetches the image URLs of a message."""

    @property
    def accepts_image_urls(self) -> bool:
        """False: the worker downloads them (workers/image_fetch.py) even with `pass_image_urls`."""
        ...


@runtime_checkable
class GrantsFeatures(Protocol):
    """Supports request fields that not every backend supports."""

    @property
    def grants(self) -> frozenset[Feature]:
        """The features; others are refused or reported as ignored before the request is sent."""
        ...


@runtime_checkable
class NamesSlots(Protocol):
    """Keeps prompts in slots of its server that a request may name."""

    @property
    def prompt_slots(self) -> int:
        """How many the server has; 0 until it has told."""
        ...

    def chat_in(self, request: ChatRequest, slot: int) -> Stream[Phase | Delta | Done]:
        """Do what `chat` does, in this slot of the server; it waits while another uses the slot."""
        ...


@runtime_checkable
class ReportsSlots(Protocol):
    """Reports how many requests its server runs at once."""

    async def slots(self) -> int | None:
        """Return the number, None if the server does not report it; raises BackendError."""
        ...


class ModelLease(Protocol):
    """A lease on the memory of the machine: one worker at a time has a model loaded."""

    async def claim(self, model: str, leave: Callable[[], None]) -> None:
        """Return when this worker holds the lease; wait while another worker holds it.

        `leave` is called, perhaps more than once, when another worker waits for the lease.
        """
        ...

    async def release(self, model: str) -> None:
        """Release the lease."""
        ...


@runtime_checkable
class HasModelLease(Protocol):
    """Loads models into the memory of the worker itself."""

    def use_model_lease(self, lease: ModelLease) -> None:
        """Claim this lease before a model is loaded; called once, before the first job."""
        ...


_METHODS: dict[Capability, str] = {kind: kind for kind in get_args(Capability)} | {"list": "models"}


def capabilities(backend: Backend) -> tuple[Capability, ...]:
    """The kinds of jobs that a backend has a method for, as the roster lists them."""
    return tuple(kind for kind, method in _METHODS.items() if hasattr(backend, method))


def grants(backend: Backend) -> frozenset[Feature]:
    """The features that a backend supports beyond those of every backend."""
    return backend.grants if isinstance(backend, GrantsFeatures) else frozenset()


def ungranted(request: Request, backend: Backend) -> tuple[str, ...]:
    """The fields of the request that this backend ignores.

    Raises NotSupported, with the remedy, for a feature that must not be ignored.
    """
    missing = [each for each in features_of(request) if each not in grants(backend)]
    for feature in missing:
        if feature in REMEDIES:
            raise NotSupported(f"{feature}: backend {backend.name}: {REMEDIES[feature]}")
    return tuple(missing)
