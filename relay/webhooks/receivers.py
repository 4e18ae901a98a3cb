"""Who gets the events of an end: webhooks of its tenant, and the address that its request names."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Literal, NamedTuple

from contract import redis_keys
from contract.webhooks.webhook_models import CALLBACKS, EventType, Webhook
from contract.wire import WireModel
from relay.webhooks.notices import Notice, WebhookEvent, event_of, types_of


class StoredDelivery(WireModel):
    """A delivery as it is stored: what is posted where."""

    id: str
    type: EventType
    subject: str
    at: float
    webhook: str
    """Its id, without the tenant."""
    url: str | None = None
    """Of a receiver that a request has named; None: that of the webhook."""
    body: str
    forget: Literal[True] | None = None
    """Whether this address, and an event with an error's text, are removed once it has ended."""

    @property
    def is_whole(self) -> bool:
        """Whether it could be made again."""
        return bool(self.body) and (self.webhook != CALLBACKS or self.url is not None)


class Receiver(NamedTuple):
    """What has a queue of its own."""

    tenant: str
    id: str
    """Of the webhook; `cb_` and a digest for an address that a request names."""
    webhook: str
    """Whose secret signs, and where deliveries are listed."""

    @property
    def name(self) -> str:
        """The name of its keys."""
        return f"{self.tenant}/{self.id}"

    @classmethod
    def of_url(cls, tenant: str, url: str) -> "Receiver":
        """The receiver at an address that a request names."""
        return cls(tenant, f"cb_{sha256(url.encode()).hexdigest()[:24]}", CALLBACKS)

    @classmethod
    def named(cls, name: str) -> "Receiver":
        """The receiver of a name."""
        tenant, _, id = name.partition("/")
        return cls(tenant, id, CALLBACKS if id.startswith("cb_") else id)

    @property
    def lane(self) -> str:
        """Those with which it shares a bound of what is delivered at once."""
        return f"{self.tenant}/{CALLBACKS if self.webhook == CALLBACKS else 'webhooks'}"

    @property
    def keys(self) -> tuple[str, str, str, str]:
        """Its queue, its state, the list of its webhook's deliveries, and its lane."""
        listed = redis_keys.webhook_deliveries(f"{self.tenant}/{self.webhook}")
        lane = redis_keys.webhook_lane(self.lane)
        return (
            redis_keys.webhook_queue(self.name),
            redis_keys.webhook_state(self.name),
            listed,
            lane,
        )


class Routed(NamedTuple):
    """A delivery for one receiver."""

    receiver: Receiver
    delivery: StoredDelivery
    refusal: str = ""
    """Why it is dropped at once; empty: it is not."""


class OutboxEntry(NamedTuple):
    """An end that nobody was told of yet."""

    id: str
    notice: Notice | None
    """None: a newer version wrote it."""

    @property
    def at(self) -> float:
        """When it ended, in unix seconds by Redis's clock."""
        return int(self.id.partition("-")[0]) / 1000


def routed_to(notice: Notice, at: float, webhooks: Iterable[Webhook]) -> list[Routed]:
    """The deliveries of an end, which was at `at` (unix seconds); `webhooks` are its tenant's."""
    events = [event_of(notice, type_, at) for type_ in types_of(notice)]
    found = [
        Routed(
            Receiver(notice.tenant, webhook.id, webhook.id),
            stored_delivery(event, webhook.id, forget=notice.forget),
            why_disabled(webhook),
        )
        for webhook in webhooks
        for event in events
        if webhook.id != CALLBACKS and webhook.wants(event.type)
    ]
    if notice.url is not None:
        receiver = Receiver.of_url(notice.tenant, notice.url)
        delivery = stored_delivery(events[-1], CALLBACKS, notice.url, forget=notice.forget)
        found.append(Routed(receiver, delivery))
    return found


def stored_delivery(
    event: WebhookEvent,
    webhook: str,
    url: str | None = None,
    *,
    forget: Literal[True] | None = None,
) -> StoredDelivery:
    """The delivery of an event."""
    return StoredDelivery(
        id=event.id, type=event.type, subject=event.subject, at=event.at, webhook=webhook,
        url=url, body=event.body, forget=forget,
    )  # fmt: skip


def why_disabled(webhook: Webhook) -> str:
    """Why nothing is sent to a webhook; empty: it is enabled."""
    if webhook.disabled_at is None:
        return ""
    return f"the webhook is disabled: {webhook.disabled_reason}"
