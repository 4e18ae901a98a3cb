"""The processes of a soak: a server, shims, workers, what they talk to, and who restarts them."""

import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from support.proxy import Proxy, proxy_to
from support.receiver import Answer, Received, Receiver, receiver
from support.redis_server import RedisServer, free_port
from support.relay import Relay, relay_on

from chaos.backends import Streams, watched_server
from chaos.errands import REAL
from chaos.schedule import SHIMS
from contract.errors import RelayUnavailable
from contract.tenants import DEFAULT_TENANT
from contract.webhooks.webhook_models import NewWebhook
from fleet.real.run_llama_server import running_llama_server
from relay.webhooks.webhook_store import WebhookStore

_log = logging.getLogger(__name__)

LEASE_S = 4.0
FLEET = {
    "FLEET_LEASE_S": str(LEASE_S), "FLEET_RENEW_S": "1", "FLEET_REAP_S": "0.8",
    "FLEET_COMMAND_TIMEOUT_S": "2", "FLEET_DRAIN_S": "1", "FLEET_CHECK_S": "2",
    "FLEET_WATCHDOG_S": "30", "FLEET_KEEPALIVE_S": "2", "FLEET_LOG_TTL_S": "3600",
    "FLEET_SHUTDOWN_S": "2", "FLEET_COMPACT_AFTER_S": "1",
    # Far limits, so that something is reserved for every job, and a row for every model.
    "FLEET_TENANT_TOKENS_DAY": "1000000000000", "FLEET_ANSWER_TOKENS": "1000000",
    "FLEET_USAGE_ROWS": "100000",
    "FLEET_PRIVATE_WEBHOOKS": "true", "FLEET_WEBHOOK_RETRY_S": "0.1",
}  # fmt: skip
"""Shorter leases than usual, so that a soak of minutes sees many of them expire; logs are compacted
while callers come back to them."""
_HOOK_FAILS = 0.1
"""The part of the requests to the receiver of webhooks that fail."""
_PAUSE_S = 0.3
"""Between a death and the next start, as a supervisor has it."""
_READY_WITHIN_S = 60.0
_ENDS_WITHIN_S = 20.0


def moody(got: Received) -> Answer | None:
    """How a receiver answers that fails at times: with an error, or without a word."""
    luck = random.random()
    if luck > _HOOK_FAILS:
        return 204, {}
    return (503, {}) if luck > _HOOK_FAILS / 2 else None


class DidNotStart(Exception):
    """A process of the cast was not ready in time; the message tells why."""


@dataclass
class Player:
    """A process that is started again whenever it ends; each life has a name of its own."""

    name: str
    words: list[str]
    environment: Callable[[str], dict[str, str]]
    folder: Path
    died: Callable[[str], object] = lambda _: None
    lives: list[str] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Exit codes of the lives before this one."""
    _process: asyncio.subprocess.Process | None = None
    _ending: bool = False

    @property
    def log(self) -> Path:
        """Of all lives."""
        return self.folder / f"{self.name}.log"

    async def keep(self) -> None:
        """Run until `end`."""
        while not self._ending:
            life = f"{self.name}.{len(self.lives) + 1}"
            self.lives.append(life)
            with self.log.open("ab") as out:
                self._process = await asyncio.create_subprocess_exec(
                    *self.words, env={**os.environ, **FLEET, **self.environment(life)},
                    stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
                )  # fmt: skip
            self.ends.append(await self._process.wait())
            if not self._ending:
                await asyncio.sleep(_PAUSE_S)

    def send(self, number: signal.Signals) -> str:
        """Send a signal to the present life, and tell its name."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
        return self.lives[-1]

    async def gone(self, life: str) -> None:
        """Wait until that life is over."""
        async with asyncio.timeout(_ENDS_WITHIN_S):
            while len(self.ends) <= self.lives.index(life):
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """SIGTERM, a bounded wait, SIGKILL."""
        self._ending = True
        self.send(signal.SIGCONT)
        life = self.send(signal.SIGTERM)
        try:
            await self.gone(life)
        except TimeoutError:
            _log.error("%s does not end on SIGTERM", life)
            self.send(signal.SIGKILL)


@dataclass
class Cast:
    """Everything that a soak starts."""

    redis: RedisServer
    relay: Relay
    """Goes around the proxies: the eyes of the verdict."""
    folder: Path
    hook: Receiver
    """Is told of the end of every job."""
    workers: dict[str, Player] = field(default_factory=dict)
    shims: dict[str, Player] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)
    to_redis: dict[str, Proxy] = field(default_factory=dict)
    to_backend: dict[str, Proxy] = field(default_factory=dict)
    streams: list[Streams] = field(default_factory=list)
    redis_alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    pauses: list[tuple[str, float, float]] = field(default_factory=list)
    """Queues that were paused, from and until when (unix seconds)."""
    """Held by whoever stops the server, so that two faults do not wait for each other."""

    @property
    def players(self) -> dict[str, Player]:
        """Shims and workers."""
        return {**self.shims, **self.workers}

    @property
    def proxies(self) -> list[Proxy]:
        """All of them."""
        return [*self.to_redis.values(), *self.to_backend.values()]

    async def release(self, life: str) -> None:
        """What a supervisor does that has seen a worker die: give its jobs back at once."""
        with suppress(RelayUnavailable):
            await self.relay.leases.release_worker(life)

    def heal(self) -> None:
        """End every fault that lasts."""
        for proxy in self.proxies:
            proxy.heal()
        for player in self.players.values():
            player.send(signal.SIGCONT)

    async def ready(self) -> None:
        """Wait until every shim answers and every worker is on the roster, its backend seen.

        Raises DidNotStart.
        """
        try:
            async with asyncio.timeout(_READY_WITHIN_S), aiohttp.ClientSession() as http:
                for url in self.urls:
                    while not await _answers(http, f"{url}/readyz"):
                        await asyncio.sleep(0.05)
                while not await self._all_healthy():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            tails = [player.log.read_text()[-800:] for player in self.players.values()]
            raise DidNotStart("\n".join(tails)) from None

    async def _all_healthy(self) -> bool:
        try:
            reports = {each.name: each for each in await self.relay.roster.workers()}
        except RelayUnavailable:
            return False
        return all(
            player.lives[-1] in reports and reports[player.lives[-1]].backends[0].healthy
            for player in self.workers.values()
        )


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def cast(folder: Path, *, with_real: bool) -> AsyncGenerator[Cast]:
    """Start everything; end everything."""
    async with AsyncExitStack() as stack:
        # What is answered is on disk: no kill of the server may lose a word.
        redis = RedisServer(folder, "--appendfsync", "always")
        stack.callback(redis.stop)
        relay = await stack.enter_async_context(relay_on(redis.url))
        hook = stack.enter_context(receiver())
        hook.answer = moody
        await WebhookStore(relay.connection).create(
            DEFAULT_TENANT.name, NewWebhook(url=hook.url, events=("job.*",))
        )
        here = Cast(redis, relay, folder, hook)
        for name in SHIMS:
            here.to_redis[name] = await stack.enter_async_context(proxy_to(redis.port))
            _add_shim(here, name)
        for name, dsn in (await _backends(here, stack, with_real=with_real)).items():
            here.to_redis[name] = await stack.enter_async_context(proxy_to(redis.port))
            _add_worker(here, name, dsn)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for player in here.players.values():
            group.create_task(player.keep())
        try:
            started_at = time.monotonic()
            await here.ready()
            _log.info("all are ready after %.1f s", time.monotonic() - started_at)
            yield here
        finally:
            here.heal()
            await asyncio.gather(*(player.end() for player in here.players.values()))


async def _backends(here: Cast, stack: AsyncExitStack, *, with_real: bool) -> dict[str, str]:
    """What each worker talks to, through a proxy of its own: worker to DSN."""
    dsns = {"scripted": "scripted://?slots=8&idle_s=3"}
    for backend, workers in {"box": ("box-1", "box-2"), "gpu": ("gpu",)}.items():
        port, streams = await stack.enter_async_context(watched_server())
        here.streams.append(streams)
        scheme = {"box": "ollama", "gpu": "vllm"}[backend]
        for name in workers:
            proxy = await stack.enter_async_context(proxy_to(port))
            here.to_backend[name] = proxy
            dsns[name] = f"{scheme}://127.0.0.1:{proxy.port}?slots=6&idle_s=3"
    if with_real:
        server = stack.enter_context(running_llama_server(slots=4))
        here.to_backend[REAL] = await stack.enter_async_context(proxy_to(server.port))
        dsns[REAL] = f"llamacpp://127.0.0.1:{here.to_backend[REAL].port}?slots=4&idle_s=5"
    return dsns


def _add_shim(here: Cast, name: str) -> None:
    port = free_port()
    here.urls.append(f"http://127.0.0.1:{port}")
    here.shims[name] = Player(
        name,
        [sys.executable, "-m", "api_shim", "--port", str(port)],
        lambda _: {"FLEET_REDIS_URL": here.to_redis[name].redis_url},
        here.folder,
    )


def _add_worker(here: Cast, name: str, dsn: str) -> None:
    backend = name.partition("-")[0]
    here.workers[name] = Player(
        name,
        [sys.executable, "-m", "workers"],
        lambda life: {
            "FLEET_REDIS_URL": here.to_redis[name].redis_url,
            "FLEET_WORKER_BACKEND": backend,
            "FLEET_WORKER_NAME": life,
            f"LLM_{backend.upper()}": dsn,
        },
        here.folder,
    )
