"""One try of a delivery: posted, noted in its queue, and its webhook disabled if it is hopeless."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from api_shim.dependencies import Dependencies
from contract.errors import UnknownWebhook
from contract.webhooks.webhook_models import CALLBACKS, Webhook
from relay.webhooks.delivery_queue import FirstDelivery, TryOutcome
from relay.webhooks.receivers import (
    StoredDelivery,
)

if TYPE_CHECKING:
    from api_shim.webhooks.posting import PostResult
    from outbound.public_web import PublicWeb

_log = logging.getLogger(__name__)


class DeliveryTries:
    """Makes tries; what each led to is in the queue of its receiver before the next one."""

    def __init__(self, dependencies: Dependencies) -> None:
        """Nothing is sent yet."""
        self._settings = dependencies.settings
        self._store, self._queue = dependencies.webhooks, dependencies.deliveries
        self._series = dependencies.metrics.process.series

    async def make(self, first: FirstDelivery, webhook: Webhook, web: "PublicWeb") -> bool:
        """Try a delivery and note how it went. Returns whether the next one may follow at once.

        Raises RelayUnavailable.
        """
        receiver, delivery = first.receiver, first.delivery
        secrets = await self._store.signing_secrets(receiver.tenant, receiver.webhook)
        url = delivery.url or webhook.url or ""
        result = await self._posted(web, url, delivery, secrets)
        if delivery.forget and delivery.url is not None:
            host = urlsplit(delivery.url).hostname or ""
            result = result._replace(error=result.error.replace(host, "its host"))
        tried = self._outcome(first, result)
        await self._queue.settle(first, tried)
        self._series.count("webhook_tries_total", tried.outcome)
        if tried.outcome == "failed":
            await self._disable_if_hopeless(first, result)
        return tried.outcome == "delivered"

    async def _posted(
        self, web: "PublicWeb", url: str, delivery: StoredDelivery, secrets: Sequence[SecretStr]
    ) -> "PostResult":
        """Post a delivery, unless nothing could sign it: the webhook is being removed, or worse."""
        from api_shim.webhooks.posting import PostResult, post  # noqa: PLC0415 - only the deliverer needs aiohttp

        if not secrets:
            return PostResult(error="its secret is gone: `fleet webhooks rotate` makes a new one")
        return await post(web, url, delivery, secrets, self._queue.now)

    def _outcome(self, first: FirstDelivery, result: "PostResult") -> TryOutcome:
        from api_shim.webhooks.posting import pause_s  # noqa: PLC0415 - as above

        now = self._queue.now
        if not result.error:
            return TryOutcome("delivered", result.status, "", now)
        first_s = self._settings.webhook_retry_s
        due_at = now + pause_s(first.state.failures + 1, first_s, result.retry_after_s)
        is_last = result.is_gone or first.tries + 1 >= self._settings.webhook_tries
        _log.info(
            "%s: %s was not delivered (%d. try): %s", first.receiver.name, first.delivery.id,
            first.tries + 1, result.error,
        )  # fmt: skip
        return TryOutcome("failed" if is_last else "retry", result.status, result.error, due_at)

    async def _disable_if_hopeless(self, first: FirstDelivery, result: "PostResult") -> None:
        """Disable a webhook that wants no more, or that several deliveries could not reach."""
        receiver, lost = first.receiver, first.state.lost + 1
        if receiver.webhook == CALLBACKS:
            return
        if result.is_gone:
            reason = "it answered 410: it wants no more events"
        elif lost >= self._settings.webhook_failures:
            reason = f"{lost} deliveries in a row failed in every try, the last: {result.error}"
        else:
            return
        at = self._queue.now
        with suppress(UnknownWebhook):
            await self._store.change(
                receiver.tenant,
                receiver.webhook,
                lambda known: known.model_copy(
                    update={"disabled_at": at, "disabled_reason": reason}
                ),
            )
        _log.warning("webhook %s is disabled: %s", receiver.name, reason)
        await self._queue.clear(receiver, f"the webhook is disabled: {reason}")
