"""Jobs that ran out of attempts, for the tests of dead letters."""

from typing import Any

from contract.errors import ServerFault
from contract.jobs import JobRecord
from contract.requests import OnDisconnect
from support.relay import QUEUE, Relay, chat


async def died(
    relay: Relay, text: str = "hello", *, on_disconnect: OnDisconnect = "continue", **arguments: Any
) -> JobRecord:
    """A job that ran out of attempts, as it is kept."""
    arguments = {"queue": QUEUE, **arguments}
    record, _ = await relay.queue.enqueue(
        chat(text, max_attempts=1, on_disconnect=on_disconnect), **arguments
    )
    claim = await relay.start_next(arguments["queue"], "w1")
    assert claim is not None
    assert claim.record.id == record.id
    await relay.leases.hand_over(
        record.queue, record.id, claim.attempt, reason="it broke", counts=True,
        error=ServerFault("the backend broke"),
    )  # fmt: skip
    return await relay.records.get(record.id)
