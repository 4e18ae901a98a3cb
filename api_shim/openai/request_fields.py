"""Fields that requests of several endpoints share, and errors that name a field. Pure.

Unknown fields are accepted, because real clients send them, and reported; invalid values of known
fields are refused.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, ValidationError

from api_shim.http.problems import FieldError, Refusal, message_of_translated
from api_shim.submission.ignored_fields import LenientModel
from contract.chat import ImagePart
from contract.errors import FleetError, InvalidRequest, NotSupported
from contract.requests import LONGEST_METADATA, MOST_METADATA, Metadata, Priority, Request, Word
from contract.webhooks.webhook_models import checked_url

AnyKind = TypeVar("AnyKind", bound=Request)

_PRIORITIES: Final[Mapping[str, Priority]] = {
    "priority": "interactive",
    "fast": "interactive",
    "default": "standard",
    "flex": "batch",
}
"""By service tier; `auto` and unknown tiers leave it to the fleet."""
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
"""OpenAI's names for fields of the contract, where they differ."""


CacheKey = Annotated[str, Field(max_length=256 * 1024)]
"""A client's name for its conversation; a long one becomes its digest (`key_of`)."""


class OpenAIRequestBody(LenientModel):
    """A part of a request's body; unknown fields are reported in X-Fleet-Ignored."""


class OpenAIRequest(OpenAIRequestBody):
    """The body of a request that submits a job."""

    model: Word
    """As listed by `GET /v1/models`."""
    backend: Word | None = None
    """Name of the backend, an addition of ours for fleets where several have the model."""
    service_tier: Word | None = None
    """`priority` goes first, `flex` last (a job of priority batch); the response has the actual
    tier.
    """
    user: Annotated[str, Field(max_length=LONGEST_METADATA)] | None = None
    """The client's name for its user; kept with the job, and sent to no backend."""
    metadata: Metadata | None = None
    """The client's own notes; they are returned with the job's record."""

    @property
    def field_names(self) -> Mapping[str, str]:
        """OpenAI's names for fields of the contract in this body, for error messages."""
        return {}


def tier_of(priority: Priority) -> str:
    """The service tier of a priority."""
    return _TIERS[priority]


def invalid_field(
    field: str,
    message: str,
    *,
    error: type[FleetError] = InvalidRequest,
    code: str | None = None,
    remedy: str = "change it",
) -> Refusal:
    """An error that names a field; `code` replaces the error class's code."""
    field_error = FieldError(
        field=field, where="body", code=code or error.code, message=message, remedy=remedy
    )
    return Refusal(code or error, f"{field}: {message}", errors=(field_error,))


def image_part(field: str, image: str) -> ImagePart:
    """An image of a message; raises Refusal if it is invalid."""
    try:
        return ImagePart.of(image)
    except ValueError as error:
        raise invalid_field(field, str(error)) from None


def unsupported_field(field: str, message: str) -> Refusal:
    """An error for a feature of OpenAI's that a fleet does not have."""
    return invalid_field(field, message, error=NotSupported, remedy="leave it out")


def build_request(kind: type[AnyKind], body: OpenAIRequest, **fields: Any) -> AnyKind:
    """A request of the contract from these fields, without those that are None.

    Raises Refusal with OpenAI's names of the fields.
    """
    shared = {
        "model": body.model,
        "backend": body.backend,
        "priority": _PRIORITIES.get(body.service_tier or ""),
        "metadata": _metadata(body),
        "callback_url": callback_in(body.metadata),
    }
    given = {name: value for name, value in (shared | fields).items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = [str(step) for step in first["loc"] if not str(step).startswith("tuple[")]
        names = {**_NAMES, **body.field_names}
        path[:1] = [names.get(name, name) for name in path[:1]]
        raise invalid_field(".".join(path) or "body", message_of_translated(first)) from None


def callback_in(metadata: Mapping[str, Any] | None) -> str | None:
    """Where the end of a request is to be posted: `webhook` of its metadata, if it is a URL.

    Any other `webhook` there is the client's own note. Raises Refusal.
    """
    url = (metadata or {}).get("webhook")
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        return None
    try:
        return checked_url(url)
    except ValueError as error:
        raise invalid_field("metadata.webhook", str(error)) from None


def _metadata(body: OpenAIRequest) -> dict[str, str] | None:
    metadata = dict(body.metadata or {})
    if body.user is not None and len(metadata) < MOST_METADATA:
        metadata.setdefault("user", body.user)
    return metadata or None
