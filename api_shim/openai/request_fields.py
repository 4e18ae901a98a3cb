"""What requests of several endpoints share: whose, how urgent, and errors that name a field. Pure.

Unknown fields are accepted, as real clients send them, and named; what is known and wrong is
refused.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from api_shim.http.problems import FieldError, Refusal
from api_shim.submission.ignored_fields import Lenient
from contract.chat import ImagePart
from contract.errors import FleetError, InvalidRequest, NotSupported
from contract.images import normalized
from contract.requests import Priority, Request

AnyKind = TypeVar("AnyKind", bound=Request)

_PRIORITIES: Final[Mapping[str, Priority]] = {
    "priority": "interactive",
    "fast": "interactive",
    "default": "standard",
    "flex": "batch",
}
"""By service tier; `auto` and whatever else is new leaves it to us."""
_TIERS: Final[Mapping[Priority, str]] = {
    "interactive": "priority",
    "standard": "default",
    "batch": "flex",
}
_NAMES: Final[Mapping[str, str]] = {
    "count": "n",
    "width": "size",
    "height": "size",
    "mime_type": "output_format",
    "tokens": "input",
}
"""What fields of ours are called here, where they have another name."""
_LONGEST_NOTES: Final = 16
"""Entries that a job's metadata may have."""


class OpenAIRequestBody(Lenient):
    """A part of a request's body; what it does not know is named in X-Fleet-Ignored."""


class OpenAIRequest(OpenAIRequestBody):
    """The body of a request that makes a job."""

    model: str
    """As `GET /v1/models` has it."""
    backend: str | None = None
    """Name of the backend: ours, for fleets where several have the model."""
    service_tier: str | None = None
    """`priority` goes first, `flex` last (a job of class batch); the answer says what it was."""
    user: str | None = None
    """The caller's own name for whoever asks; kept with the job, and sent nowhere."""
    metadata: dict[str, Any] | None = None
    """The caller's own notes; they come back with the job's record."""

    @property
    def spelt(self) -> Mapping[str, str]:
        """What fields of the contract are called here, where errors are to name them."""
        return {}


def tier_of(priority: Priority) -> str:
    """The service tier that a job of this class has had."""
    return _TIERS[priority]


def wrong(
    field: str,
    message: str,
    *,
    error: type[FleetError] = InvalidRequest,
    code: str | None = None,
    remedy: str = "change it",
) -> Refusal:
    """A refusal that names a field; with a `code` that is none of the contract's, if need be."""
    told = FieldError(
        field=field, where="body", code=code or error.code, message=message, remedy=remedy
    )
    return Refusal(code or error, f"{field}: {message}", errors=(told,))


def shown(field: str, image: str) -> ImagePart:
    """An image of a message; raises Refusal for what is none."""
    try:
        return ImagePart(image=normalized(image))
    except ValueError as error:
        raise wrong(field, str(error)) from None


def unsupported(field: str, message: str) -> Refusal:
    """A refusal of what the original can do, and a fleet of backends cannot."""
    return wrong(field, message, error=NotSupported, remedy="leave it out")


def made(kind: type[AnyKind], asked: OpenAIRequest, **fields: Any) -> AnyKind:
    """A request of the contract from these fields, those that are None left out.

    Raises Refusal in the words of this surface.
    """
    shared = {
        "model": asked.model,
        "backend": asked.backend,
        "priority": _PRIORITIES.get(asked.service_tier or ""),
        "metadata": _notes(asked),
    }
    given = {name: value for name, value in (shared | fields).items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = [str(step) for step in first["loc"] if not str(step).startswith("tuple[")]
        names = {**_NAMES, **asked.spelt}
        path[:1] = [names.get(name, name) for name in path[:1]]
        raise wrong(".".join(path) or "body", first["msg"]) from None


def _notes(asked: OpenAIRequest) -> dict[str, Any] | None:
    notes = dict(asked.metadata or {})
    if asked.user is not None and len(notes) < _LONGEST_NOTES:
        notes.setdefault("user", asked.user)
    return notes or None
