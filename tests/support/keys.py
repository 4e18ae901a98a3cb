"""A shim that asks for keys, and keys for it.

On a Redis of the test's own (`own_redis`), never the session's: the session's shim would see the
keys, too, and take their end for a loss of Redis's, after which it lets nobody in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from support.shim import serving


class Keyed(NamedTuple):
    """A shim with an admin's key; callers with other keys are made as they are needed."""

    url: str
    key: str

    def issue(self, tenant: str, **fields: Any) -> dict[str, Any]:
        """Make a key for a tenant; all that is told of it, the key under `key`."""
        return issued(self.url, bearer(self.key), tenant=tenant, **fields)

    def caller(self, tenant: str, **fields: Any) -> httpx.AsyncClient:
        """A client of a tenant with a new key."""
        return client(self.url, self.issue(tenant, **fields)["key"])

    @property
    def admin(self) -> httpx.AsyncClient:
        """A client with the admin's key."""
        return client(self.url, self.key)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def client(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=10)


def issued(url: str, headers: dict[str, str], **wish: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/api/v1/keys", json=wish, headers=headers)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


@contextmanager
def keyed(redis_url: str, **settings: Any) -> Iterator[Keyed]:
    """A shim of this test's own, with one key: an admin's."""
    with serving(redis_url, **{"key_max_age_s": 0.2, **settings}) as url:
        yield Keyed(url, issued(url, {}, tenant="boss", admin=True)["key"])
