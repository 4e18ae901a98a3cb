"""What a backend is: a small thing that can be checked, and one protocol per thing it can do.

A capability is a method. A backend that can embed has `embed`; nothing else declares it. Streams
are async generators of events whose last item is a `Done`; a failure is raised as a
`contract.errors.BackendError`, never yielded. Closing the generator closes the socket.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, TypeVar, get_args, runtime_checkable

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.events import Delta, Details, Done, Image, Phase, Progress, Vectors
from contract.features import Feature
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
from contract.roster import Capability, ModelReport

Item = TypeVar("Item")
Stream = AsyncGenerator[Item, None]


@runtime_checkable
class Backend(Protocol):
    """Something that answers for one endpoint."""

    @property
    def name(self) -> str:
        """The configured name, as in `ollama`."""
        ...

    async def check(self) -> str | None:
        """Return the server's version if it is up (None if it does not tell).

        Raises a BackendError that says what is wrong otherwise.
        """
        ...

    async def models(self) -> Sequence[ModelReport]:
        """List the models it can serve; raises BackendError."""
        ...

    async def aclose(self) -> None:
        """Let go of every connection."""
        ...


@runtime_checkable
class Chat(Protocol):
    """Can continue a conversation."""

    def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """Stream the answer."""
        ...


@runtime_checkable
class Prefill(Protocol):
    """Knows whether its server continues a trailing assistant message instead of answering it."""

    async def prefills(self, model: str) -> bool:
        """Whether an answer that broke off may be continued by sending it back, to the letter.

        Raises BackendError if it has to ask, and gets no answer.
        """
        ...


@runtime_checkable
class Embed(Protocol):
    """Can turn texts into vectors."""

    def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """Yield every row exactly once, in order."""
        ...


@runtime_checkable
class LimitsEmbedBatch(Protocol):
    """Cuts long lists of texts into requests to its server."""

    def max_texts(self, model: str) -> int:
        """How many texts of this model go into one."""
        ...


@runtime_checkable
class Pull(Protocol):
    """Can download a model."""

    def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """Download; the totals in `Progress` cover all digests seen so far."""
        ...


@runtime_checkable
class Delete(Protocol):
    """Can delete a model."""

    def delete(self, request: DeleteRequest) -> Stream[Done]:
        """Remove a model."""
        ...


@runtime_checkable
class ManageModels(Delete, Protocol):
    """Can show, make, copy and delete models."""

    def show(self, request: ShowRequest) -> Stream[Details | Done]:
        """Tell everything about a model."""
        ...

    def create(self, request: CreateRequest) -> Stream[Progress | Done]:
        """Make a model from another."""
        ...

    def copy(self, request: CopyRequest) -> Stream[Done]:
        """Give a model a second name."""
        ...


@runtime_checkable
class SwapModels(Protocol):
    """Can bring models into memory and take them out."""

    def running(self) -> Stream[Details | Done]:
        """Tell which models are loaded."""
        ...

    def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """Bring a model into memory."""
        ...

    def unload(self, request: UnloadRequest) -> Stream[Done]:
        """Take a model out of memory; `EVERY_MODEL` takes all, where the backend can swap."""
        ...


@runtime_checkable
class GenerateImages(Protocol):
    """Can make images."""

    def image(self, request: ImageRequest) -> Stream[Phase | Progress | Image | Done]:
        """Make images; previews are marked partial."""
        ...


@runtime_checkable
class AcceptsImageUrls(Protocol):
    """May fetch the images of a message itself."""

    @property
    def accepts_image_urls(self) -> bool:
        """Whether it does; else the worker fetches them (workers/image_fetch.py)."""
        ...


@runtime_checkable
class GrantsFeatures(Protocol):
    """Has words for more of a request than every backend has."""

    @property
    def grants(self) -> frozenset[Feature]:
        """For what; the rest is refused or named as ignored before the backend is asked."""
        ...


@runtime_checkable
class ReportsSlots(Protocol):
    """Knows how many chats its server takes at once."""

    async def slots(self) -> int | None:
        """Return the number, None if the server does not tell; raises BackendError."""
        ...


class ModelLease(Protocol):
    """Says which worker may have a model in its memory, where one is all that there is room for."""

    async def claim(self, model: str, leave: Callable[[], None]) -> None:
        """Return when this worker may; wait for as long as another one does.

        `leave` is called, perhaps more than once, when it should let go: another worker waits.
        """
        ...

    async def release(self, model: str) -> None:
        """Let others have it."""
        ...


@runtime_checkable
class HasModelLease(Protocol):
    """Has its models in the worker's own memory."""

    def use_model_lease(self, residence: ModelLease) -> None:
        """Ask this before a model is loaded; called once, before the first job."""
        ...


_METHODS: dict[Capability, str] = {kind: kind for kind in get_args(Capability)} | {"list": "models"}


def capabilities(backend: Backend) -> tuple[Capability, ...]:
    """The kinds of jobs that a backend has a method for."""
    return tuple(kind for kind, method in _METHODS.items() if hasattr(backend, method))
