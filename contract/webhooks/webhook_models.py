"""Webhooks: addresses to which the ends of jobs and batches are posted, and what is posted.

What is sent follows Standard Webhooks 1.0 (github.com/standard-webhooks, spec): the headers
`webhook-id`, `webhook-timestamp` and `webhook-signature`, secrets that begin with `whsec_`. Events
that OpenAI has are named and shaped as there (openai/openai-python, `types/webhooks`).
"""

import re
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StrictBool,
    WithJsonSchema,
    field_serializer,
)
from pydantic_core import PydanticCustomError

from contract.wire import ClientModel, WireModel

EventType = Literal[
    "job.done", "job.failed", "job.cancelled",
    "response.completed", "response.failed", "response.cancelled", "response.incomplete",
    "batch.completed", "batch.failed", "batch.expired", "batch.cancelled",
]  # fmt: skip
EventPattern = EventType | Literal["job.*", "response.*", "batch.*"]
"""The name of an event, or of all events of a kind."""
Family = Literal["job", "response"]
"""Which names the end of a job has: a response of `/v1/responses` has both, any other the first."""

LONGEST_URL: Final = 2048
_SCHEMES: Final = frozenset({"http", "https"})
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""A part of a host's name: at most 63 characters (RFC 1035)."""
_LONGEST_HOST: Final = 253
CALLBACKS: Final = "callbacks"
"""In place of a webhook's id: the addresses that single requests name."""
WEBHOOK_ID: Final = re.compile(r"^(wh_[0-9a-f]{24}|callbacks)$")
DELIVERY_ID: Final = re.compile(r"^evt_[0-9a-f]{32}$")
MOST_DELIVERIES: Final = 1000
"""Deliveries of a webhook that have ended, and are listed."""


def checked_url(text: str) -> str:
    """The address of a receiver; raises ValueError with what is wrong, which never repeats it."""
    if len(text) > LONGEST_URL:
        raise ValueError(f"it has {len(text)} characters, and may have {LONGEST_URL}")
    if text and not _PRINTABLE.fullmatch(text):
        raise ValueError(
            "it may hold visible ASCII characters only: percent-encode the others, and write the"
            " host as xn--..."
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in _SCHEMES or not host:
        raise ValueError("give an http or https URL, as in https://example.com/hooks")
    if not _is_host(host) or port == 0:
        raise ValueError(
            "its host must be a name, as in hooks.example.com, or a whole IP address, and its port"
            " 1 to 65535"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError("it may hold no user or password: what is posted is signed instead")
    if parts.fragment:
        raise ValueError("leave out # and what follows it: it is never sent")
    return text


def _is_host(host: str) -> bool:
    """Whether a host is an address, or a name that could be resolved.

    A name whose last part is a number is meant as an IPv4 address, which has four parts (WHATWG
    URL, host parsing): other forms of it are read differently by different programs.
    """
    try:
        ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        is_number = labels[-1].isdigit() or labels[-1].startswith("0x")
        is_name = len(host) <= _LONGEST_HOST and all(map(_LABEL.fullmatch, labels))
        return is_name and not is_number
    return True


def _checked(text: str) -> str:
    try:
        return checked_url(text)
    except ValueError as error:
        raise PydanticCustomError("webhook_url", "{why}", {"why": str(error)}) from None


ReceiverUrl = Annotated[
    str,
    AfterValidator(_checked),
    Field(examples=["https://example.com/hooks"], json_schema_extra={"maxLength": LONGEST_URL}),
]
"""Where a webhook is posted."""


def _tuple(value: Any) -> Any:
    return tuple(dict.fromkeys(value)) if isinstance(value, list) and _are_texts(value) else value


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


Events = Annotated[
    tuple[EventPattern, ...],
    BeforeValidator(_tuple),
    Field(min_length=1, max_length=16, examples=[["job.*", "batch.completed"]]),
]
_USUAL: Final[tuple[EventPattern, ...]] = ("job.*", "batch.*")


class NewWebhook(ClientModel):
    """The request to register an address for all ends of a tenant's jobs and batches."""

    url: ReceiverUrl
    """Gets a POST for each event; http or https, at an address of the open internet."""
    events: Events = _USUAL
    """Which events; `job.*` are all of jobs. The events of OpenAI's responses, `response.*`, are
    besides those of their jobs, and sent only if they are named here."""
    name: Annotated[str, Field(max_length=80)] = ""
    """A note for humans."""


class WebhookChange(ClientModel):
    """What to change of a webhook; what is left out stays as it is."""

    url: ReceiverUrl | None = None
    events: Events | None = None
    name: Annotated[str, Field(max_length=80)] | None = None
    enabled: StrictBool | None = None
    """False: nothing is posted; true: what waits is posted, also if the fleet has disabled it."""


class Webhook(WireModel):
    """A webhook; times are unix seconds by Redis's clock."""

    id: str
    """`wh_` and 24 hexadecimal digits; `callbacks` are the addresses that single requests name."""
    tenant: str
    url: str | None = None
    """Null for `callbacks`."""
    events: tuple[EventPattern, ...] = ()
    """None for `callbacks`, which get the ends of their requests."""
    name: str = ""
    created_at: float
    disabled_at: float | None = None
    disabled_reason: str = ""
    """Why nothing is posted: its owner wanted it so, or it has failed for too long."""

    def wants(self, event: EventType) -> bool:
        """Whether the event is posted there."""
        family = f"{event.partition('.')[0]}.*"
        return event in self.events or family in self.events


class WebhookView(Webhook):
    """A webhook, and how its deliveries go."""

    waiting: int = 0
    """Deliveries that wait."""
    tries: int = 0
    """Failed tries since the last success."""
    next_at: float | None = None
    """When the next one is tried."""
    error: str = ""
    """How the last try failed; empty after a success."""


class WebhookList(WireModel):
    """A tenant's webhooks, the oldest first."""

    webhooks: tuple[WebhookView, ...]


class IssuedWebhook(Webhook):
    """A webhook with its secret, which is shown only once."""

    secret: Annotated[SecretStr, WithJsonSchema({"type": "string"}, mode="serialization")]
    """`whsec_` and base64: the key of its signatures."""

    @field_serializer("secret", when_used="json")
    def _in_full(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


DeliveryState = Literal["waiting", "delivered", "failed", "dropped"]


class Delivery(WireModel):
    """One event on its way to one receiver, or at the end of it."""

    id: str
    """The header `webhook-id`: the same in each try and each replay."""
    webhook: str
    type: EventType
    subject: str
    """The job, response or batch that has ended."""
    at: float
    """When it ended (unix seconds)."""
    state: DeliveryState
    tries: int = 0
    status: int | None = None
    """The receiver's last HTTP status; null if it sent none."""
    error: str = ""
    """Why the last try failed, or why it was dropped."""
    ended_at: float | None = None
    url: str | None = None
    """Where it goes, if a request has named that."""


class DeliveryPage(WireModel):
    """Deliveries of a webhook, the newest first."""

    deliveries: tuple[Delivery, ...]


class WebhookReplay(ClientModel):
    """Which deliveries are to be made again."""

    id: Annotated[str, Field(pattern=DELIVERY_ID.pattern)] | None = None
    """One of them."""
    since: Annotated[float, Field(ge=0, le=253_402_300_799)] | None = None
    """All of jobs and batches that have ended since (unix seconds)."""
    failed_only: StrictBool = False
    """With `since`: only those that failed or were dropped."""


class Replayed(WireModel):
    """How many deliveries wait again."""

    replayed: int
    dropped: int = 0
    """Further ones, for which the queue of the webhook had no room."""


class RotateSecret(ClientModel):
    """How a secret is replaced."""

    overlap_s: Annotated[float, Field(ge=0, le=7 * 86400)] = 86400
    """Seconds for which deliveries are signed with the old secret, too."""
