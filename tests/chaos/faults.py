"""Does to the cast what the schedule says."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
from support.proxy import Proxy

from chaos.cast import Cast
from chaos.schedule import Fault

Deed = Callable[[Cast, Fault], Awaitable[None]]


async def kill_and_release(cast: Cast, fault: Fault) -> None:
    """A crash on a machine whose supervisor lives."""
    player = cast.workers[fault.target]
    life = player.send(signal.SIGKILL)
    await player.gone(life)
    await cast.release(life)


async def kill(cast: Cast, fault: Fault) -> None:
    """A machine that goes with everything on it."""
    cast.players[fault.target].send(signal.SIGKILL)


async def terminate(cast: Cast, fault: Fault) -> None:
    """A deployment."""
    cast.players[fault.target].send(signal.SIGTERM)


async def freeze(cast: Cast, fault: Fault) -> None:
    """A machine that swaps, a laptop that sleeps."""
    player = cast.players[fault.target]
    life = player.send(signal.SIGSTOP)
    await asyncio.sleep(fault.lasts_s)
    if player.lives[-1] == life:
        player.send(signal.SIGCONT)


async def restart_redis(cast: Cast, fault: Fault) -> None:
    """With all that it has answered; gone for a while."""
    how = signal.SIGKILL if "SIGKILL" in fault.kind else signal.SIGTERM
    async with cast.redis_alone:
        await asyncio.to_thread(cast.redis.stop, how)
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(cast.redis.start)


async def freeze_redis(cast: Cast, fault: Fault) -> None:
    """Connections are open, and nobody answers."""
    async with cast.redis_alone:
        assert cast.redis.process is not None
        cast.redis.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        cast.redis.process.send_signal(signal.SIGCONT)


async def forget_scripts(cast: Cast, _: Fault) -> None:
    """As a failover does."""
    await _say(cast, "SCRIPT", "FLUSH")


async def kill_clients(cast: Cast, _: Fault) -> None:
    """Every connection at once, the listeners', too."""
    await _say(cast, "CLIENT", "KILL", "TYPE", "normal")
    await _say(cast, "CLIENT", "KILL", "TYPE", "pubsub")


async def _say(cast: Cast, *words: str) -> None:
    async with cast.redis_alone:
        with suppress(OSError):
            await asyncio.to_thread(cast.redis.say, *words)


async def pause_queue(cast: Cast, fault: Fault) -> None:
    """An admin's doing; the pause ends by itself if no shim answers when it is to be resumed."""
    path = f"/api/v1/queues/{fault.target}"
    until = time.time() + fault.lasts_s + _RESUMES_WITHIN_S
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        is_paused = await _posted(cast, http, f"{path}/pause", {"until": until})
        paused_at = time.time()
        await asyncio.sleep(fault.lasts_s)
        if is_paused:
            cast.pauses.append((fault.target, paused_at, time.time()))
        await _posted(cast, http, f"{path}/resume", None)


_RESUMES_WITHIN_S = 6.0
_TIMEOUT = aiohttp.ClientTimeout(total=3)


async def _posted(cast: Cast, http: aiohttp.ClientSession, path: str, body: object) -> bool:
    """Whether a shim did it, of which the one or other may be dead."""
    for url in cast.urls:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with http.post(url + path, json=body) as response:
                if response.status == 200:
                    return True
    return False


def on_line(which: str, deed: Callable[[Proxy], object]) -> Deed:
    """A fault of the line between the target and Redis, or its backend.

    A line to a backend that swallowed is reset in the end, as keep-alive does it: no answer's
    silence before its first word is too long for a worker, a cold model may load for minutes.
    """

    async def act(cast: Cast, fault: Fault) -> None:
        proxy = (cast.to_redis if which == "redis" else cast.to_backend)[fault.target]
        deed(proxy)
        if fault.lasts_s:
            await asyncio.sleep(fault.lasts_s)
            proxy.heal()
            if which == "backend":
                proxy.cut_dead()

    return act


def _slow(proxy: Proxy) -> None:
    proxy.delay_s = 0.1


DEEDS: dict[str, Deed] = {
    "kill -9 a worker, released at once": kill_and_release,
    "kill -9 a worker, its leases expire": kill,
    "SIGTERM a worker": terminate,
    "SIGSTOP a worker past its lease": freeze,
    "SIGSTOP a worker for a moment": freeze,
    "kill -9 a shim": kill,
    "SIGTERM a shim": terminate,
    "restart Redis (SIGTERM)": restart_redis,
    "restart Redis (SIGKILL)": restart_redis,
    "SIGSTOP Redis": freeze_redis,
    "SCRIPT FLUSH": forget_scripts,
    "CLIENT KILL everybody": kill_clients,
    "a queue is paused": pause_queue,
    "reset lines to Redis": on_line("redis", Proxy.cut),
    "slow lines to Redis": on_line("redis", _slow),
    "half-open lines to Redis": on_line("redis", Proxy.swallow),
    "half-open lines to Redis past the lease": on_line("redis", Proxy.swallow),
    "no way to Redis": on_line("redis", Proxy.refuse),
    "reset lines to a backend": on_line("backend", Proxy.cut),
    "slow lines to a backend": on_line("backend", _slow),
    "half-open lines to a backend": on_line("backend", Proxy.swallow),
    "no way to a backend": on_line("backend", Proxy.refuse),
}
"""One for every kind in the schedule."""
