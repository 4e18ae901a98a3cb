"""What a long queue costs Redis: a hundred thousand waiting jobs, beside a hundred.

    python -m bench.deep_queue [JOBS]

Times are the server's own, of each script and command (its slow log with a threshold of nothing),
so that the machine's other work does not count; p99 of a thousand of each verb. The jobs are of
twenty tenants, three classes and ten models.
"""

import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import uvloop
from pydantic import SecretStr

from bench.processes import redis as redis_server
from contract import redis_keys
from contract.chat import ChatRequest, Message
from contract.tenants import Tenant
from relay.claims import Claims
from relay.connection import Connection
from relay.leases import Leases
from relay.order import ClaimFilter
from relay.queue import Queue
from relay.reconciler import Reconciler
from relay.settings import RelaySettings

QUEUE: Final = "bench.chat"
MANY, FEW, SAMPLES, AT_ONCE = 100_000, 100, 1_000, 64
LIMIT_MS: Final = 5.0
TENANTS, MODELS = 20, 10
WARM: Final = ClaimFilter(warm=frozenset(f"m{number}" for number in range(3)))

Verb = Callable[[], Awaitable[Any]]


class DeepQueue:
    """A queue that is kept at its depth while each verb is measured."""

    def __init__(
        self, connection: Connection, tenants: int = TENANTS, models: int = MODELS
    ) -> None:
        """Work through this connection, for so many tenants that use so many models."""
        self.connection = connection
        self.tenants = [Tenant(name=f"t{n}", weight=1 + n % 3) for n in range(tenants)]
        self.models = [f"m{number}" for number in range(models)]
        self.queue = Queue(connection)
        self.claims = Claims(connection)
        self.leases = Leases(connection)
        self.reconciler = Reconciler(connection)
        self.dice = random.Random(1)
        self.waiting: list[str] = []
        self.claimed: list[str] = []

    async def enqueue(self) -> None:
        """One more job, of anybody."""
        request = ChatRequest(
            model=self.dice.choice(self.models),
            messages=(Message(role="user", content="word " * self.dice.randint(1, 200)),),
            priority=self.dice.choice(["interactive", "standard", "batch"]),
        )
        tenant = self.dice.choice(self.tenants)
        record, _ = await self.queue.enqueue(request, queue=QUEUE, tenant=tenant)
        self.waiting.append(record.id)

    async def fill(self, depth: int) -> None:
        """Let so many jobs wait."""
        missing = depth - len(self.waiting)
        for begin in range(0, missing, AT_ONCE):
            await asyncio.gather(*(self.enqueue() for _ in range(min(AT_ONCE, missing - begin))))

    async def claim(self) -> None:
        """What a worker with three warm models does."""
        claim = await self.claims.claim(QUEUE, "w", WARM)
        if claim is not None and await self.claims.start(claim) is not None:
            self.claimed.append(claim.job_id)

    async def end_claimed(self) -> None:
        """What was claimed must not look lost to the audit."""
        for id in self.claimed:
            await self.queue.cancel(id, by="bench")
        self.claimed.clear()

    async def position(self) -> None:
        """Where some job stands."""
        records = self.queue._records  # noqa: SLF001 - the verb reads no record by itself
        await self.queue.positions.place(await records.get(self.dice.choice(self.waiting[-50:])))

    async def cancel(self) -> None:
        """Somebody gives up."""
        await self.queue.cancel(self.waiting.pop(), by="bench")

    async def reap(self) -> None:
        """What every worker does every three seconds."""
        await self.leases.reap()
        await self.reconciler.reconcile()


async def redis_ms(connection: Connection, verb: Verb, times: int) -> list[float]:
    """Milliseconds that Redis spent, one number a call of the verb."""
    spent = []
    for _ in range(times):
        await connection.command("SLOWLOG", "RESET")
        await verb()
        entries = await connection.command("SLOWLOG", "GET", 128)
        spent.append(sum(entry[2] for entry in entries if b"SLOWLOG" not in entry[3][0]) / 1000)
    return spent


async def _at(deep: DeepQueue, depth: int) -> dict[str, list[float]]:
    await deep.fill(depth)
    verbs: dict[str, tuple[Verb, int]] = {
        "enqueue": (deep.enqueue, SAMPLES),
        "position": (deep.position, SAMPLES),
        "cancel": (deep.cancel, min(SAMPLES, depth // 2)),
        "claim": (deep.claim, min(SAMPLES, depth // 2)),
        "reap and audit": (deep.reap, 50),
    }
    spent = {}
    for name, (verb, times) in verbs.items():
        spent[name] = await redis_ms(deep.connection, verb, times)
        await deep.end_claimed()
    return spent


async def _measure(url: str, many: int) -> bool:
    settings = RelaySettings(redis_url=SecretStr(url), queue_limit=10 * many)
    async with Connection.open(settings) as connection:
        await connection.ping()
        await connection.command("CONFIG", "SET", "slowlog-max-len", 1000)
        deep = DeepQueue(connection)
        await deep.fill(FEW)
        await connection.command("CONFIG", "SET", "slowlog-log-slower-than", 0)
        few = await _at(deep, FEW)
        await connection.command("CONFIG", "SET", "slowlog-log-slower-than", -1)
        await deep.fill(many)
        await connection.command("CONFIG", "SET", "slowlog-log-slower-than", 0)
        there = await connection.command("ZCARD", redis_keys.backlog(QUEUE))
        print(f"{there:,} jobs wait; milliseconds of Redis a call, median and p99")
        return _report(few, await _at(deep, there))


def _report(few: dict[str, list[float]], many: dict[str, list[float]]) -> bool:
    print(f"\n{'verb':<16}{'p50':>8}{'p99':>8}{f'p99 at {FEW}':>14}{'ratio':>8}")
    fits = True
    for name, spent in many.items():
        p50, p99 = _quantile(spent, 50), _quantile(spent, 99)
        before = _quantile(few[name], 99)
        print(f"{name:<16}{p50:>8.3f}{p99:>8.3f}{before:>14.3f}{p99 / before:>8.1f}")
        fits = fits and (p99 < LIMIT_MS or name == "reap and audit")
    print(f"\nunder {LIMIT_MS:g} ms p99 each: {'reached' if fits else 'MISSED'}")
    return fits


def _quantile(spent: list[float], percent: int) -> float:
    return quantiles(spent, n=100, method="inclusive")[percent - 1]


def main() -> None:
    """Start a server, fill the queue, measure, print."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else MANY
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as (url, _):
        fits = uvloop.run(_measure(url, many))
    sys.exit(0 if fits else 1)


if __name__ == "__main__":
    main()
