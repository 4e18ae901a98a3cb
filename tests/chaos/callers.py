"""The callers of a soak: they ask, follow, leave, come back elsewhere, read slowly, and cancel."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from pydantic_core import from_json

from chaos.errands import Errand, Visit
from contract.events import LAST_WORDS

_RETRY_S = 0.25
_MOST_RETRY_S = 2.0
_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=3)
_FOLLOW_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=8)
"""A stream says something every two seconds; one that does not is left for another."""
_PASSING = frozenset({429, 503})
_TROUBLE = (aiohttp.ClientError, ConnectionError, TimeoutError)
_READ_BYTES = 512


class Heard(NamedTuple):
    """One event as it arrived."""

    id: str
    type: str
    body: bytes


@dataclass
class View:
    """What one follower has heard, across all its comebacks."""

    visit: Visit
    heard: list[Heard] = field(default_factory=list)
    comebacks: int = 0
    log_resets: int = 0
    longest_silence_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether the last word was heard."""
        return bool(self.heard) and self.heard[-1].type in LAST_WORDS


@dataclass
class Tale:
    """What became of one errand, as its caller saw it."""

    errand: Errand
    job: str = ""
    asked: int = 0
    not_before: float | None = None
    """When the job may start, unix seconds."""
    parent: str = ""
    """The job that it waits for; empty: none, or its caller was not told its id in time."""
    accepted_at: float = 0.0
    accepted_after_s: float = 0.0
    cancelled_at: float | None = None
    cancels: list[dict[str, Any]] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Caller:
    """Runs one errand against whichever shim answers."""

    def __init__(
        self,
        errand: Errand,
        urls: list[str],
        http: aiohttp.ClientSession,
        known: dict[int, str] | None = None,
    ) -> None:
        """Nothing is asked yet; `known` are the jobs of all errands that were accepted."""
        self._known = {} if known is None else known
        self.tale = Tale(errand)
        self._errand = errand
        self._urls = urls
        self._http = http
        self._dice = random.Random(errand.number)

    async def run(self) -> Tale:
        """Ask, and see it through to its last word."""
        await self._enqueue()
        if self.tale.job:
            async with asyncio.TaskGroup() as group:
                for visit in self._errand.visits:
                    view = View(visit)
                    self.tale.views.append(view)
                    group.create_task(self._follow(view))
                if self._errand.cancels:
                    group.create_task(self._cancel())
            await self._until_over()
        return self.tale

    async def _until_over(self) -> None:
        """Wait for a last word that nobody follows any more."""

        async def look(url: str) -> tuple[int, Any]:
            path = f"{url}/api/v1/jobs/{self.tale.job}?result=false"
            async with self._http.get(path, timeout=_TIMEOUT) as response:
                return response.status, await response.json(content_type=None)

        while not any(view.is_over for view in self.tale.views):
            status, record = await self._until_answered(look)
            if status != 200:
                self.tale.problems.append(f"a look answered {status}: {record}")
            if status != 200 or record["status"] in LAST_WORDS:
                return
            await asyncio.sleep(_RETRY_S)

    async def _enqueue(self) -> None:
        began_at = time.monotonic()
        body = {**self._errand.body, **self._waits_for()}
        headers = {"Idempotency-Key": f"errand-{self._errand.number}"}

        async def ask(url: str) -> tuple[int, Any]:
            self.tale.asked += 1
            path = f"{url}/api/v1/jobs/{self._errand.kind}"
            async with self._http.post(path, json=body, headers=headers, timeout=_TIMEOUT) as r:
                return r.status, await r.json(content_type=None)

        status, accepted = await self._until_answered(ask)
        if status not in {200, 202}:
            self.tale.problems.append(f"enqueue answered {status}: {accepted}")
            return
        self.tale.job = self._known[self._errand.number] = accepted["id"]
        self.tale.accepted_at = time.monotonic()
        self.tale.accepted_after_s = self.tale.accepted_at - began_at

    def _waits_for(self) -> dict[str, Any]:
        """The same each time it is asked: the fields belong to its Idempotency-Key."""
        errand, tale = self._errand, self.tale
        if errand.later_s is not None:
            tale.not_before = time.time() + errand.later_s
            return {"not_before": tale.not_before}
        tale.parent = "" if errand.parent is None else self._known.get(errand.parent, "")
        if not tale.parent:
            return {}
        return {"after_any" if errand.after_any else "after": [tale.parent]}

    async def _cancel(self) -> None:
        for after_s in self._errand.cancels:
            await asyncio.sleep(self.tale.accepted_at + after_s - time.monotonic())

            async def cancel(url: str) -> tuple[int, Any]:
                path = f"{url}/api/v1/jobs/{self.tale.job}"
                async with self._http.delete(path, timeout=_TIMEOUT) as response:
                    return response.status, await response.json(content_type=None)

            status, record = await self._until_answered(cancel)
            self.tale.cancelled_at = self.tale.cancelled_at or time.monotonic()
            if status != 200:
                self.tale.problems.append(f"cancel answered {status}: {record}")
            else:
                self.tale.cancels.append(record)

    async def _until_answered(
        self, ask: Callable[[str], Awaitable[tuple[int, Any]]]
    ) -> tuple[int, Any]:
        """The first answer that is not a passing trouble."""
        pause_s = _RETRY_S
        while True:
            try:
                status, answer = await ask(self._dice.choice(self._urls))
            except (*_TROUBLE, ValueError) as trouble:
                status, answer = 0, trouble
            if status and status not in _PASSING:
                return status, answer
            await asyncio.sleep(pause_s)
            pause_s = min(_MOST_RETRY_S, pause_s * 2)

    async def _follow(self, view: View) -> None:
        """Be there as the visit says, until the last word."""
        await asyncio.sleep(view.visit.after_s)
        leaves = list(view.visit.leaves)
        while not view.is_over:
            left = await self._listen(view, leaves.pop(0) if leaves else None)
            if view.problems or (left and not view.visit.returns):
                return
            view.comebacks += 1
            await asyncio.sleep(view.visit.away_s if left else _RETRY_S)

    async def _listen(self, view: View, leave_at: int | None) -> bool:
        """Follow from the cursor on; true if the follower left by its own wish."""
        url = f"{self._dice.choice(self._urls)}/api/v1/jobs/{self.tale.job}/events"
        cursor = view.heard[-1].id if view.heard else None
        ways = {"sse": self._sse, "ndjson": self._ndjson, "websocket": self._websocket}
        last_at = time.monotonic()
        try:
            async with aclosing(ways[view.visit.way](url, cursor, view)) as events:
                async for event in events:
                    view.longest_silence_s = max(view.longest_silence_s, time.monotonic() - last_at)
                    last_at = time.monotonic()
                    _take(view, event)
                    if view.is_over:
                        return False
                    if leave_at is not None and len(view.heard) >= leave_at:
                        return True
        except _TROUBLE:
            pass
        return False

    async def _sse(self, url: str, cursor: str | None, view: View) -> AsyncGenerator[Heard, None]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
        fields: dict[bytes, bytes] = {}
        async with aclosing(self._lines(url, headers, {}, view)) as lines:
            async for line in lines:
                name, _, value = line.partition(b": ")
                if line:
                    fields[name] = value
                    continue
                if b"data" in fields:
                    id = fields.get(b"id", b"").decode()
                    yield Heard(id, fields[b"event"].decode(), fields[b"data"])
                fields = {}

    async def _ndjson(
        self, url: str, cursor: str | None, view: View
    ) -> AsyncGenerator[Heard, None]:
        params = {"after": cursor} if cursor else {}
        headers = {"Accept": "application/x-ndjson"}
        async with aclosing(self._lines(url, headers, params, view)) as lines:
            async for line in lines:
                if line:
                    yield _heard(line)

    async def _websocket(
        self, url: str, cursor: str | None, view: View
    ) -> AsyncGenerator[Heard, None]:
        params = {"after": cursor} if cursor else {}
        timeout = aiohttp.ClientWSTimeout(ws_receive=20, ws_close=1)
        async with self._http.ws_connect(url, params=params, timeout=timeout) as socket:
            async for message in socket:
                yield _heard(message.data.encode())
                await asyncio.sleep(view.visit.pause_s)
            if socket.close_code and socket.close_code >= 4000 and socket.close_code != 4503:
                view.problems.append(f"the WebSocket closed with {socket.close_code}")

    async def _lines(
        self, url: str, headers: dict[str, str], params: dict[str, str], view: View
    ) -> AsyncGenerator[bytes, None]:
        ask = self._http.get(
            url, headers=headers, params=params, timeout=_FOLLOW_TIMEOUT, read_bufsize=_READ_BYTES
        )
        async with ask as response:
            if response.status != 200:
                if response.status not in _PASSING:
                    view.problems.append(f"events answered {response.status}")
                return
            rest = b""
            async for data in response.content.iter_chunked(_READ_BYTES):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    yield line
                await asyncio.sleep(view.visit.pause_s)


def _heard(body: bytes) -> Heard:
    event = from_json(body)
    return Heard(event.get("id", ""), event["type"], body)


def _take(view: View, event: Heard) -> None:
    if event.type == "log_reset":
        view.log_resets += 1
        view.heard.clear()
    elif event.id:
        view.heard.append(event)
