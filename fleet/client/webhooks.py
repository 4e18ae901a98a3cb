"""Webhooks of a tenant: registered, rotated, watched and replayed."""

from typing import Any, Final
from urllib.parse import quote

from contract.json_lines import json_line
from contract.webhooks.webhook_models import (
    Delivery,
    DeliveryPage,
    DeliveryState,
    IssuedWebhook,
    Replayed,
    WebhookList,
    WebhookView,
)
from fleet.client.answers import answer_of
from fleet.client.transport import Shims

_PATH: Final = "/api/v1/webhooks"


class AsyncWebhooks:
    """Manages the caller's own webhooks.

    `webhook_id` is `callbacks` for what is posted to addresses that single requests name. Every
    method raises the FleetError that the shim responds with (UnknownWebhook, InvalidRequest), or
    FleetUnreachable.
    """

    def __init__(self, shims: Shims) -> None:
        """Send requests to these shims."""
        self._shims = shims

    async def add(self, /, url: str, **fields: Any) -> IssuedWebhook:
        """Register an address; only this response and that of `rotate` have `.secret`.

        `fields` are `events` and `name` of `contract.webhooks.webhook_models.NewWebhook`.
        """
        return answer_of(IssuedWebhook, await self._send("POST", "", {"url": url, **fields}))

    async def list(self) -> tuple[WebhookView, ...]:
        """All webhooks, the oldest first, with how their deliveries go."""
        return answer_of(WebhookList, await self._send("GET", "")).webhooks

    async def get(self, webhook_id: str) -> WebhookView:
        """One webhook."""
        return answer_of(WebhookView, await self._send("GET", _of(webhook_id)))

    async def change(self, /, webhook_id: str, **fields: Any) -> WebhookView:
        """Change `url`, `events` or `name`; `enabled` turns it off and on."""
        return answer_of(WebhookView, await self._send("PATCH", _of(webhook_id), fields))

    async def remove(self, webhook_id: str) -> None:
        """Remove a webhook, and what waits for it."""
        await self._send("DELETE", _of(webhook_id))

    async def rotate(self, webhook_id: str, overlap_s: float = 86400.0) -> IssuedWebhook:
        """Replace its secret; for `overlap_s` seconds deliveries are signed with both."""
        path = f"{_of(webhook_id)}/rotate"
        return answer_of(IssuedWebhook, await self._send("POST", path, {"overlap_s": overlap_s}))

    async def deliveries(
        self, webhook_id: str, *, state: DeliveryState | None = None, limit: int = 100
    ) -> tuple[Delivery, ...]:
        """Deliveries, the newest first, of one state or of all."""
        params = {"limit": limit} if state is None else {"limit": limit, "state": state}
        path = f"{_PATH}{_of(webhook_id)}/deliveries"
        body = await self._shims.request("GET", path, params=params)
        return answer_of(DeliveryPage, body).deliveries

    async def replay(
        self,
        webhook_id: str,
        *,
        id: str | None = None,
        since: float | None = None,
        failed_only: bool = False,
    ) -> Replayed:
        """Deliver again: one by its id, or all that ended since a time (unix seconds)."""
        given = {"id": id, "since": since, "failed_only": failed_only}
        wanted = {name: value for name, value in given.items() if value is not None}
        return answer_of(Replayed, await self._send("POST", f"{_of(webhook_id)}/replay", wanted))

    async def _send(self, method: str, path: str, fields: dict[str, Any] | None = None) -> bytes:
        body = None if fields is None else json_line(fields)
        return await self._shims.request(method, f"{_PATH}{path}", body=body)


def _of(webhook_id: str) -> str:
    return f"/{quote(webhook_id, safe='')}"
