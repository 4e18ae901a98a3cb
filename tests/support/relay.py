"""The relay, built by hand, as a shim and a worker would."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from contract.chat import ChatRequest, Message
from contract.events import BEGINNING, Cursor, Delta, Done, Event, EventId, Frame
from contract.result import Fold, Result
from relay.claims import Claims, StartedJob
from relay.compaction.compactor import Compactor
from relay.connection import Connection
from relay.dead_letters import UnreadableMessages
from relay.leases import Holder, Leases
from relay.log import Log
from relay.order import ClaimFilter
from relay.publisher import AttemptLog, Publisher
from relay.queue import Queue
from relay.reconciler import Reconciler
from relay.records import Records
from relay.roster import RosterStore
from relay.settings import RelaySettings
from relay.subscriber import Subscriber

QUEUE = "scripted.chat"


def chat(text: str = "hello", **fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=(Message(role="user", content=text),), **fields)


class Relay:
    """The objects of the relay over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.subscriber = Subscriber(connection)
        self.publisher = Publisher(connection)
        self.log = Log(connection, self.subscriber)
        self.queue = Queue(connection)
        self.claims = Claims(connection)
        self.leases = Leases(connection)
        self.reconciler = Reconciler(connection)
        self.compactor = Compactor(connection)
        self.records = Records(connection)
        self.roster = RosterStore(connection)
        self.unreadable = UnreadableMessages(connection)

    async def enqueue(self, text: str = "hello", **fields: Any) -> str:
        record, _ = await self.queue.enqueue(chat(text, **fields), queue=QUEUE)
        return record.id

    async def claim(self, worker: str = "w1") -> StartedJob:
        claim = await self.start_next(QUEUE, worker)
        assert claim is not None
        return claim

    async def start_next(
        self, queue: str, worker: str, claim_filter: ClaimFilter | None = None
    ) -> StartedJob | None:
        """Claim the next job that has not ended, and start it: what a worker does."""
        while claim := await self.claims.claim(queue, worker, claim_filter or ClaimFilter()):
            job = await self.claims.start(claim)
            if job is not None:
                return job
        return None

    def attempt_log(self, claim: StartedJob) -> AttemptLog:
        return self.publisher.attempt_log(claim)

    async def run(self, claim: StartedJob, *events: Event, worker: str = "w1") -> None:
        """Append the events and a `done`, then release the job: what a worker does."""
        attempt_log = self.attempt_log(claim)
        for event in (*events, Done()):
            attempt_log.append(event)
        await attempt_log.flush()
        await self.leases.release(
            claim.record.queue, claim.record.id, Holder(claim.attempt, worker)
        )

    async def result(self, job_id: str) -> Result:
        """The result of a job's events so far."""
        answer = Fold()
        async for frames in self.log.read(job_id):
            for frame in frames:
                answer.add_frame(frame)
        return answer.result

    async def frames(
        self, job_id: str, after: EventId = BEGINNING, nonce: str | None = None
    ) -> list[Frame]:
        """Follow a job to its end."""
        pages = self.log.follow(job_id, Cursor(after, nonce))
        return [frame async for frames in pages for frame in frames]


Saved = list[tuple[bytes, int, bytes | None]]
"""Keys, with when they expire and what they hold; None: it was gone by then."""


async def saved(relay: Relay) -> Saved:
    """All that Redis holds, as a copy on its disk would have it."""
    command = relay.connection.command
    return [
        (key, await command("PEXPIRETIME", key), await command("DUMP", key))
        for key in await command("KEYS", "*")
    ]


async def restore(relay: Relay, copy: Saved) -> None:
    """Redis starts again from an older copy."""
    rows = [
        ("RESTORE", key, max(expires, 0), data, "ABSTTL")
        for key, expires, data in copy
        if data is not None
    ]
    await relay.connection.pipeline([("FLUSHDB",), *rows])


@asynccontextmanager
async def relay_on(url: str, **settings: Any) -> AsyncGenerator[Relay]:
    # Not validated: some tests need a holder that never renews.
    chosen = RelaySettings(redis_url=SecretStr(url)).model_copy(update=settings)
    async with Connection.open(chosen) as connection, asyncio.TaskGroup() as group:
        relay = Relay(connection)
        tasks = [
            group.create_task(relay.subscriber.listen()),
            group.create_task(relay.publisher.write()),
        ]
        try:
            yield relay
        finally:
            for task in tasks:
                task.cancel()


def words(count: int) -> list[Delta]:
    return [Delta(content=f"w{i} ") for i in range(count)]
