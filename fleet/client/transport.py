"""HTTP requests to the shims of a fleet: retries, and failover to the next shim."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any

import httpx

from contract.errors import FleetError, RelayUnavailable
from fleet.client.answers import error_of
from fleet.client.errors import FleetUnreachable
from fleet.client.reconnect import RetryTimer
from fleet.client.settings import ClientSettings, addresses

_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 60.0
_SILENCE_TIMEOUT_S = 45.0
"""A shim sends a keep-alive every 15 s: three missed ones mean that the connection is lost."""
_FIRST_CONTACT_S = 1.0
"""How long to retry before the first response of any shim: most likely none is running."""
_DIRECT = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
"""Loopback is never behind a proxy, whatever HTTP_PROXY says."""

NO_ANSWER = (httpx.TransportError, RelayUnavailable)
"""Errors that are retried at the next shim."""


class Shims:
    """The interchangeable shims of one fleet; one of them is the current one."""

    def __init__(
        self, settings: ClientSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Connect on first use; `transport` is for tests.

        Raises FleetUnreachable without a URL, or for what is none.
        """
        self._addresses = addresses(settings.url)
        if not self._addresses:
            raise FleetUnreachable("FLEET_URL is empty: set it to http://host:8700 or unset it")
        if not all(map(is_address, self._addresses)):
            raise FleetUnreachable("FLEET_URL is not an address: set it to http://host:8700")
        key = settings.api_key
        self._give_up_s = settings.give_up_s
        self._current = 0
        self._answered = False
        self._http = httpx.AsyncClient(
            headers={"authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=httpx.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            transport=transport,
            mounts={} if transport else _DIRECT,
            limits=httpx.Limits(max_connections=None),
        )

    @property
    def address(self) -> str:
        """URL of the current shim."""
        return self._addresses[self._current % len(self._addresses)]

    def next(self) -> None:
        """Make the next shim the current one."""
        self._current += 1

    def retry_timer(self) -> RetryTimer:
        """A timer for retries: ends after 1 s if no shim has ever responded, else `give_up_s`."""
        give_up_s = self._give_up_s if self._answered else min(_FIRST_CONTACT_S, self._give_up_s)
        return RetryTimer(give_up_s, time.monotonic)

    async def pause(self, retries: RetryTimer, trouble: Exception) -> None:
        """Switch to the next shim after a pause; raises as `RetryTimer.pause_s` does."""
        where = ", ".join(self._addresses)
        at_least_s = (isinstance(trouble, FleetError) and trouble.retry_after_s) or 0.0
        pause_s = retries.pause_s(trouble, where, at_least_s=at_least_s)
        self.next()
        await asyncio.sleep(pause_s)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Body of the response; raises the FleetError that the shim responded with.

        A POST without an Idempotency-Key is retried only if no connection was made. Raises
        FleetUnreachable after the retries.
        """
        retries = self.retry_timer()
        is_harmless = method != "POST" or "idempotency-key" in (headers or {})
        sent = {"content-type": "application/json", **(headers or {})} if body else headers
        while True:
            try:
                response = await self._http.request(
                    method, self.address + path, params=params, content=body, headers=sent
                )
                self._answered = True
                if response.is_success:
                    return response.content
                raise error_of(response.status_code, response.content, response.headers)
            except NO_ANSWER as trouble:
                if not is_harmless and not _never_sent(trouble):
                    raise _final(trouble, self.address) from trouble
                await self.pause(retries, trouble)

    async def upload(
        self, path: str, fields: Mapping[str, str], name: str, file: IO[bytes]
    ) -> bytes:
        """Send a form with a file, streamed; returns the body of the response.

        Retried from the start of the file: an upload that broke off leaves nothing behind. Raises
        the FleetError that the shim responded with, or FleetUnreachable.
        """
        retries = self.retry_timer()
        while True:
            file.seek(0)
            try:
                response = await self._http.post(
                    self.address + path, data=fields, files={"file": (name, file)}
                )
                self._answered = True
                if response.is_success:
                    return response.content
                raise error_of(response.status_code, response.content, response.headers)
            except NO_ANSWER as trouble:
                await self.pause(retries, trouble)

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, Any], accept: str
    ) -> AsyncGenerator[AsyncGenerator[bytes, None]]:
        """The body of a streamed response in pieces.

        Raises the FleetError that the shim responded with, httpx.TransportError if the connection
        is lost or silent for 45 s. Nothing is retried.
        """
        async with self._http.stream(
            "GET",
            self.address + path,
            params=params,
            headers={"accept": accept},
            timeout=httpx.Timeout(_SILENCE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        ) as response:
            self._answered = True
            if not response.is_success:
                body = await response.aread()
                raise error_of(response.status_code, body, response.headers)
            yield _pieces(response)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()


def is_address(url: str) -> bool:
    """Whether httpx can read a URL; its errors are no TransportError, nor all of them its own."""
    try:
        _ = httpx.URL(url).host  # decoded here: a host may hold what is no Punycode
    except (httpx.InvalidURL, UnicodeError):
        return False
    return True


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    async for piece in response.aiter_bytes():
        yield piece


def _never_sent(trouble: Exception) -> bool:
    return isinstance(trouble, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def _final(trouble: Exception, address: str) -> FleetError:
    if isinstance(trouble, FleetError):
        return trouble
    return FleetUnreachable(
        f"the connection to {address} was lost before a response ({type(trouble).__name__}): "
        "check with `fleet jobs` whether the job was enqueued, then try again"
    )
