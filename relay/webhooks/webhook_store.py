"""Webhooks of all tenants, in one hash that every shim copies when it has changed; their secrets.

A secret signs what is posted (an HMAC), so it cannot be stored as a digest, as API keys are. It is
in a hash of its tenant that nothing but `signing_secrets` reads, and shown once.
"""

import asyncio
import base64
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from secrets import token_bytes, token_hex
from time import monotonic
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Never
from uuid import uuid4

from pydantic import SecretStr, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from contract import redis_keys
from contract.errors import InvalidRequest, RelayUnavailable, UnknownWebhook
from contract.webhooks.webhook_models import CALLBACKS, NewWebhook, Webhook
from contract.wire import encode
from relay.connection import Connection, DamagedKey, ScriptCall
from relay.scripts.loader import load
from relay.scripts.table_scripts import change_table, read_table, rows

_log = logging.getLogger(__name__)

MOST_OF_A_TENANT: Final = 20
_MOST: Final = 10_000
"""Webhooks of all tenants: every shim has a copy of them."""
_TRIES: Final = 10
"""Changes of others that may come between."""
_EVERY_S: Final = 2.0
"""Seconds between two looks for changes that other shims have made."""

Table = Mapping[str, Mapping[str, Webhook]]
"""By tenant, then by id, the oldest first."""
Change = Callable[[Webhook], Webhook]


class StoredWebhooks(NamedTuple):
    """The webhooks in Redis as of one reading."""

    revision: str = ""
    by_tenant: Table = MappingProxyType({})


class WebhookStore:
    """Reads and changes webhooks; `stored` is a copy a few seconds old."""

    def __init__(
        self, connection: Connection, check_callback: Callable[[str], None] = lambda _url: None
    ) -> None:
        """Nothing is read yet.

        `check_callback` raises InvalidRequest for an address of a request that is no receiver.
        """
        self._connection = connection
        self._check_callback = check_callback
        self.stored = StoredWebhooks()
        self._refreshed_at = -math.inf

    async def watch(self) -> Never:
        """Refresh the copy periodically, in the background."""
        while True:
            try:
                await self.refresh()
            except RelayUnavailable as error:
                _log.debug("the webhooks stay as they were: %s", error)
            await asyncio.sleep(_EVERY_S)

    async def recent(self) -> None:
        """Refresh a copy that is more than two seconds old; raises RelayUnavailable."""
        if monotonic() - self._refreshed_at > _EVERY_S:
            await self.refresh()

    async def refresh(self) -> None:
        """Read the webhooks if they have changed; raises RelayUnavailable."""
        begun_at = monotonic()
        revision, table = await self._connection.call(
            read_table(redis_keys.WEBHOOKS, self.stored.revision)
        )
        self._refreshed_at = begun_at
        if table is not None:
            read = rows(table, Webhook, self._connection.passing_over, redis_keys.WEBHOOKS)
            self.stored = StoredWebhooks(revision, _by_tenant(webhook for _, webhook in read))

    def of(self, tenant: str) -> Mapping[str, Webhook]:
        """The webhooks of a tenant by id, `callbacks` among them if it has their secret."""
        return self.stored.by_tenant.get(tenant, {})

    def has(self, tenant: str) -> bool:
        """Whether a tenant has a webhook of its own, disabled or not."""
        return any(id != CALLBACKS for id in self.of(tenant))

    async def demand_callbacks(self, tenant: str, url: str) -> None:
        """Raise InvalidRequest if nothing can be posted to a request's own address, or not signed.

        Raises RelayUnavailable.
        """
        self._check_callback(url)
        if CALLBACKS in self.of(tenant):
            return
        await self.refresh()
        if CALLBACKS not in self.of(tenant):
            raise InvalidRequest(
                f"callback_url: tenant {tenant} has no secret that signs what is posted there: "
                "`fleet webhooks rotate callbacks`, or POST /api/v1/webhooks/callbacks/rotate, "
                "makes one and shows it once",
                field="callback_url",
            )

    async def is_told(self, tenant: str, callback_url: str | None) -> bool:
        """Whether anybody is told of the end of a batch; raises as `demand_callbacks`."""
        if callback_url is not None:
            await self.demand_callbacks(tenant, callback_url)
        return callback_url is not None or self.has(tenant)

    async def get(self, tenant: str, webhook_id: str) -> Webhook:
        """A webhook of this tenant; raises UnknownWebhook, RelayUnavailable."""
        await self.refresh()
        return self._known(tenant, webhook_id)

    def _known(self, tenant: str, webhook_id: str) -> Webhook:
        found = self.of(tenant).get(webhook_id)
        if found is None:
            raise UnknownWebhook(
                f"there is no webhook {webhook_id[:40]!r}: GET /api/v1/webhooks lists them"
            )
        return found

    async def create(self, tenant: str, new: NewWebhook) -> tuple[Webhook, SecretStr]:
        """Register a webhook. Returns it with its secret.

        Raises InvalidRequest if the tenant has 20 of them; RelayUnavailable.
        """
        webhook = Webhook(
            id=f"wh_{token_hex(12)}",
            tenant=tenant,
            url=new.url,
            events=new.events,
            name=new.name,
            created_at=self._connection.now(),
        )
        return await self._add(webhook)

    async def create_callbacks(
        self, tenant: str, overlap_s: float = 0.0
    ) -> tuple[Webhook, SecretStr]:
        """Make the secret for addresses that requests name; raises as `rotate`.

        If another call has just made one, this is a rotation with `overlap_s`: what both have
        shown is valid.
        """
        made = Webhook(id=CALLBACKS, tenant=tenant, created_at=self._connection.now())
        self._demand_room()
        secret = await self.rotate(made, overlap_s)
        await self._set(tenant, CALLBACKS, lambda: self.of(tenant).get(CALLBACKS, made))
        return self._known(tenant, CALLBACKS), secret

    async def _add(self, webhook: Webhook) -> tuple[Webhook, SecretStr]:
        def with_room() -> Webhook:
            if sum(id != CALLBACKS for id in self.of(webhook.tenant)) >= MOST_OF_A_TENANT:
                raise InvalidRequest(
                    f"tenant {webhook.tenant} has {MOST_OF_A_TENANT} webhooks, the limit: remove "
                    "one, or let one receive more events"
                )
            self._demand_room()
            return webhook

        secret = await self.rotate(webhook, 0.0)
        try:
            await self._set(webhook.tenant, webhook.id, with_room)
        except InvalidRequest:
            await self._delete_secrets(webhook)
            raise
        return webhook, secret

    def _demand_room(self) -> None:
        if sum(map(len, self.stored.by_tenant.values())) >= _MOST:
            raise InvalidRequest(f"the fleet has {_MOST} webhooks, the limit: remove some")

    async def change(self, tenant: str, webhook_id: str, change: Change) -> Webhook:
        """Replace a webhook by what `change` makes of it.

        Raises UnknownWebhook, RelayUnavailable.
        """
        await self._set(tenant, webhook_id, lambda: change(self._known(tenant, webhook_id)))
        return self._known(tenant, webhook_id)

    async def remove(self, webhook: Webhook) -> None:
        """Remove a webhook and its secret; what is in its queue stays; raises RelayUnavailable."""
        await self._set(webhook.tenant, webhook.id, lambda: None)
        await self._delete_secrets(webhook)

    async def rotate(self, webhook: Webhook, overlap_s: float) -> SecretStr:
        """A new secret; for `overlap_s` seconds the old one signs, too.

        Raises InvalidRequest if another call replaced it at the same moment, or one of both would
        show a secret that nothing signs with; RelayUnavailable.
        """
        stored = await self._stored_secrets(webhook.tenant, webhook.id)
        try:
            known = self._parsed(webhook.tenant, webhook.id, stored)
        except DamagedKey:
            known = {}  # nothing signs but the new one
        secret = _new_secret()
        fields: dict[str, Any] = {"current": secret}
        if overlap_s and (current := known.get("current")):
            fields |= {"previous": current, "until": self._connection.now() + overlap_s}
        call = replace_secret(webhook, stored, json.dumps(fields))
        if not await self._connection.call(call):
            raise InvalidRequest(
                f"the secret of {webhook.id} was replaced at the same moment: repeat it"
            )
        return SecretStr(secret)

    async def signing_secrets(self, tenant: str, webhook_id: str) -> list[SecretStr]:
        """The secrets that sign now, the newest first; raises RelayUnavailable."""
        stored = await self._stored_secrets(tenant, webhook_id)
        known = self._parsed(tenant, webhook_id, stored)
        secrets = [known["current"]] if "current" in known else []
        if "previous" in known and known.get("until", 0.0) > self._connection.now():
            secrets.append(known["previous"])
        return [SecretStr(each) for each in secrets]

    async def _stored_secrets(self, tenant: str, webhook_id: str) -> bytes:
        key = redis_keys.webhook_secrets(tenant)
        text: bytes | None = await self._connection.command("HGET", key, webhook_id)
        return text or b""

    def _parsed(self, tenant: str, webhook_id: str, stored: bytes) -> dict[str, Any]:
        try:
            found = _secrets.validate_json(stored) if stored else _SecretsOfWebhook()
        except ValidationError as error:
            what = f"{redis_keys.webhook_secrets(tenant)}, {webhook_id}"
            self._connection.pass_over(what, ValueError("it is damaged"))
            raise DamagedKey(
                f"the secret of webhook {webhook_id} cannot be read: make a new one (rotate)"
            ) from error
        return dict(found)

    async def _delete_secrets(self, webhook: Webhook) -> None:
        await self._connection.command(
            "HDEL", redis_keys.webhook_secrets(webhook.tenant), webhook.id
        )

    async def _set(self, tenant: str, webhook_id: str, make: Callable[[], Webhook | None]) -> None:
        """Write what `make` returns of the table as it is then; None deletes the webhook."""
        for _ in range(_TRIES):
            await self.refresh()
            webhook = make()
            text = b"" if webhook is None else encode(webhook)
            row = f"{tenant}/{webhook_id}"
            call = change_table(redis_keys.WEBHOOKS, self.stored.revision, uuid4().hex, row, text)
            if await self._connection.call(call):
                return await self.refresh()
        raise RelayUnavailable("the webhooks are being changed by others: try again")


def replace_secret(webhook: Webhook, stored: bytes, new: str) -> ScriptCall[bool]:
    """Replace the secrets of a webhook (JSON); False if they are not the stored ones any more."""
    key = redis_keys.webhook_secrets(webhook.tenant)
    return ScriptCall(load("webhooks/replace_secret"), [key], [webhook.id, stored, new], bool)


class _SecretsOfWebhook(TypedDict, total=False):
    """The stored JSON."""

    current: str
    previous: str
    until: float


_secrets: Final = TypeAdapter(_SecretsOfWebhook)


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(token_bytes(32)).decode()}"


def _by_tenant(found: Iterable[Webhook]) -> dict[str, dict[str, Webhook]]:
    by_tenant: dict[str, dict[str, Webhook]] = {}
    for webhook in sorted(found, key=lambda each: each.created_at):
        by_tenant.setdefault(webhook.tenant, {})[webhook.id] = webhook
    return by_tenant
