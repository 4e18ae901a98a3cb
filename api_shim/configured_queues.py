"""Sets the run windows of queues that fleet.toml or FLEET_QUEUES name, once Redis answers.

Every shim does when it starts; one that finds that another has set the same windows changes
nothing, so that what an admin has changed since then stays (docs/adr/0051).
"""

import asyncio
import logging
from collections.abc import Mapping

from api_shim.settings import ConfiguredQueue
from contract.errors import RelayUnavailable
from relay.connection import Connection
from relay.queue import Queue
from relay.scheduling.pauses import QueuePauses

_log = logging.getLogger(__name__)


class ConfiguredQueues:
    """Run windows that a configuration sets."""

    def __init__(
        self, connection: Connection, queue: Queue, configured: Mapping[str, ConfiguredQueue]
    ) -> None:
        """Nothing is set yet."""
        self._connection = connection
        self._pauses = QueuePauses(connection)
        self._queue = queue
        self._configured = configured

    async def apply(self) -> None:
        """Set them, and try again every FLEET_REAP_S while Redis does not answer."""
        waiting = dict(self._configured)
        while waiting:
            name, wanted = next(iter(waiting.items()))
            try:
                await self._set(name, wanted)
            except RelayUnavailable as error:
                _log.warning("run windows of queue %s are not set yet: %s", name, error)
                await asyncio.sleep(self._connection.settings.reap_s)
            else:
                del waiting[name]

    async def _set(self, name: str, wanted: ConfiguredQueue) -> None:
        before = (await self._pauses.windows([name]))[name]
        paused = await self._pauses.configure(name, wanted.windows)
        after = (await self._pauses.windows([name]))[name]
        if before == after:
            return
        facts = {"queue": name, "windows": list(after)}
        _log.info("queue %s: run windows set by configuration", name, extra={"facts": facts})
        if paused is None:
            await self._queue.wake_after_pause(name)
