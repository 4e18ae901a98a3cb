"""HTTP to whichever shim answers: one question, one answer, and another shim when one is gone."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any

import httpx

from contract.errors import FleetError, RelayUnavailable
from fleet.client.error_responses import error_of
from fleet.client.errors import FleetUnreachable
from fleet.client.reconnect import Patience
from fleet.client.settings import ClientSettings, addresses

_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 60.0
_SILENCE_TIMEOUT_S = 45.0
"""A shim sends a keep-alive every 15 s: three missed ones mean that the line is dead."""
_FIRST_CONTACT_S = 1.0
"""How long to try when no shim ever answered: most likely none is running."""
_DIRECT = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
"""Loopback is never behind a proxy, whatever HTTP_PROXY says."""

NO_ANSWER = (httpx.TransportError, RelayUnavailable)
"""What another try, or another shim, may cure."""


class Shims:
    """The shims of one fleet; they are interchangeable, and one of them is the current one."""

    def __init__(
        self, settings: ClientSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Connect on first use; `transport` is for tests."""
        self._addresses = addresses(settings.url)
        if not self._addresses:
            raise FleetUnreachable("FLEET_URL is empty: set it to http://host:8700 or unset it")
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
        """The shim that is asked next."""
        return self._addresses[self._current % len(self._addresses)]

    def next(self) -> None:
        """Ask the next shim from now on."""
        self._current += 1

    def patience(self) -> Patience:
        """How long to try: briefly if no shim ever answered, else for `give_up_s`."""
        give_up_s = self._give_up_s if self._answered else min(_FIRST_CONTACT_S, self._give_up_s)
        return Patience(give_up_s, time.monotonic)

    async def pause(self, patience: Patience, trouble: Exception) -> None:
        """Turn to the next shim after a pause; raises when patience has run out."""
        where = ", ".join(self._addresses)
        at_least_s = (isinstance(trouble, FleetError) and trouble.retry_after_s) or 0.0
        pause_s = patience.pause_s(trouble, where, at_least_s=at_least_s)
        self.next()
        await asyncio.sleep(pause_s)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Body of the response; raises the FleetError that the shim responded with.

        A question that may have been heard is asked again only where that does no harm: a POST
        without an Idempotency-Key is repeated only if the connection was never made.
        """
        patience = self.patience()
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
                await self.pause(patience, trouble)

    async def upload(
        self, path: str, fields: Mapping[str, str], name: str, file: IO[bytes]
    ) -> bytes:
        """Send a form with a file, as it is read; raises the typed error of the answer.

        It is sent again where that failed: an upload that broke off leaves nothing behind.
        """
        patience = self.patience()
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
                await self.pause(patience, trouble)

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, Any], accept: str
    ) -> AsyncGenerator[AsyncGenerator[bytes, None]]:
        """Pieces of a long answer as they come; raises httpx.TransportError when the line dies."""
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


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    async for piece in response.aiter_bytes():
        yield piece


def _never_sent(trouble: Exception) -> bool:
    return isinstance(trouble, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def _final(trouble: Exception, address: str) -> FleetError:
    if isinstance(trouble, FleetError):
        return trouble
    return FleetUnreachable(
        f"{address} went away before it answered ({type(trouble).__name__}): "
        "look with `fleet jobs` whether the job was taken, then try again"
    )
