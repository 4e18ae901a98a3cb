"""A look at one endpoint of a backend: is it up, which models has it, how many slots."""

import asyncio
from typing import Final

from contract.backend_errors import BackendError
from contract.names import queue_name
from workers.backends.declared import declared
from workers.backends.dsn import BackendConfig
from workers.backends.protocols import TellsSlots
from workers.backends.several import Server

LONGEST_S: Final = 10.0


async def look(server: Server, config: BackendConfig) -> None:
    """Write down what is seen, and let the circuit know."""
    adapter = server.adapter
    try:
        async with asyncio.timeout(LONGEST_S):
            server.version = await adapter.check()
            server.models = declared(await adapter.models(), config)
            queue = queue_name(config.name, "chat")
            if isinstance(adapter, TellsSlots) and config.slots_for("chat") is None:
                told = await adapter.slots()
                if told and queue in server.slots:
                    server.slots[queue] = told
    except BackendError as failure:
        server.error = failure.message
        server.breaker.found_broken(failure)
    except TimeoutError:
        server.error = f"it did not answer within {LONGEST_S:g} s"
        server.breaker.probe()
    else:
        server.error = None
        server.breaker.found_well()
