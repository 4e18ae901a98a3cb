"""What every route works with: the relay's nouns over one connection, and this process's own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from api_shim.batch.storage import Storage
from api_shim.following.queue_position import QueuePositions
from api_shim.following.shutdown import OpenCalls
from api_shim.http.authentication import Authenticator
from api_shim.settings import ShimSettings
from api_shim.submission.roster_cache import RosterCache
from relay.api_keys import ApiKeys
from relay.batches import BatchStore
from relay.connection import Connection
from relay.dead_letters import DeadLetters
from relay.files import Files
from relay.followers import Followers
from relay.idempotency import Idempotency
from relay.log import Log
from relay.queue import Queue
from relay.records import Records
from relay.roster import RosterStore
from relay.subscriber import Subscriber
from relay.unreadable_messages import Unreadable


class Dependencies:
    """Built once a process, by `wired`."""

    def __init__(
        self, settings: ShimSettings, connection: Connection, reader: Subscriber, hangup: OpenCalls
    ) -> None:
        """Put everything together over this connection."""
        self.settings = settings
        self.connection = connection
        self.queue = Queue(connection)
        self.records = Records(connection)
        self.log = Log(connection, reader)
        self.census = RosterCache(RosterStore(connection), max_age_s=settings.roster_max_age_s)
        self.places = QueuePositions(
            self.records,
            self.queue.standing,
            self.census,
            connection.now,
            settings.place_every_s,
        )
        self.tenants = ApiKeys(connection)
        self.door = Authenticator(self.tenants, connection, settings)
        self.hangup = hangup
        self.idempotency = Idempotency(connection)
        self.dead = DeadLetters(connection)
        self.unreadable = Unreadable(connection)
        self.audience = Followers(connection, is_ending=lambda: hangup.is_over)
        self.storage = Storage(settings.storage_url)
        self.files = Files(connection)
        self.batches = BatchStore(connection)
        self.news_of_batches = asyncio.Event()
        """Set when there may be a batch to drive."""


@asynccontextmanager
async def wired(settings: ShimSettings, hangup: OpenCalls) -> AsyncGenerator[Dependencies]:
    """Open the connection and listen on it; hang up and close at the end."""
    async with Connection.open(settings) as connection, asyncio.TaskGroup() as group:
        reader = Subscriber(connection)
        wiring = Dependencies(settings, connection, reader, hangup)
        tending = [
            group.create_task(reader.listen()),
            group.create_task(wiring.audience.keep()),
            group.create_task(wiring.door.watch()),
        ]
        try:
            yield wiring
        finally:
            hangup()
            for task in tending:
                task.cancel()


async def _wiring(connection: HTTPConnection) -> Dependencies:
    wiring: Dependencies = connection.app.state.wiring
    return wiring


Wired = Annotated[Dependencies, Depends(_wiring)]
"""A parameter of a route that works with the relay."""
