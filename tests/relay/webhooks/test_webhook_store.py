"""A secret that was shown is one that signs, also if two calls replaced it at the same moment.

Subjects: relay/webhooks/webhook_store.py.
"""

import asyncio
from collections.abc import Awaitable
from itertools import count

from pydantic import SecretStr
from support.relay import relay_on

from contract import redis_keys
from contract.errors import InvalidRequest
from contract.webhooks.webhook_models import CALLBACKS, NewWebhook
from relay.webhooks.webhook_store import WebhookStore


async def shown(*calls: Awaitable[SecretStr]) -> set[str]:
    """The secrets that calls at the same moment show; some may be refused, and not all."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    others = [each for each in found if not isinstance(each, SecretStr)]
    assert all(isinstance(each, InvalidRequest) and "repeat" in str(each) for each in others)
    return {each.get_secret_value() for each in found if isinstance(each, SecretStr)}


async def signing(store: WebhookStore, tenant: str, id: str) -> set[str]:
    return {each.get_secret_value() for each in await store.signing_secrets(tenant, id)}


async def test_what_two_first_rotations_of_callbacks_show_is_valid(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        stores = [WebhookStore(relay.connection) for _ in range(2)]

        async def first(store: WebhookStore, tenant: str) -> SecretStr:
            return (await store.create_callbacks(tenant, 60.0))[1]

        for number in range(20):
            tenant = f"t{number}"
            seen = await shown(*(first(store, tenant) for store in stores))
            await stores[0].refresh()

            assert seen
            assert seen <= await signing(stores[1], tenant, CALLBACKS)
            assert [*stores[0].of(tenant)] == [CALLBACKS]


async def test_what_two_rotations_show_is_valid(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        store = WebhookStore(relay.connection)
        webhook, before = await store.create("a", NewWebhook(url="https://example.com/"))
        for _ in range(20):
            seen = await shown(*(store.rotate(webhook, 60.0) for _ in range(2)))
            signs = await signing(store, "a", webhook.id)

            assert seen
            assert seen <= signs
            assert len(seen) > 1 or before.get_secret_value() in signs
            before = SecretStr(next(iter(seen)))
            if len(seen) > 1:
                before = await store.rotate(webhook, 60.0)


async def test_damaged_or_left_secrets_are_replaced(redis_url: str) -> None:
    numbers = count()
    async with relay_on(redis_url) as relay:
        store = WebhookStore(relay.connection)
        for text in (b"\xff{", b"[]", b'{"current": "whsec_old"}'):
            tenant = f"t{next(numbers)}"
            key = redis_keys.webhook_secrets(tenant)
            await relay.connection.command("HSET", key, CALLBACKS, text)
            _, secret = await store.create_callbacks(tenant)

            assert await signing(store, tenant, CALLBACKS) == {secret.get_secret_value()}
