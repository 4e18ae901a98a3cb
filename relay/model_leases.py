"""Which worker has a model in its own memory: a lease per model, renewed while it is there.

A worker that wants what another has asks again and again, and its asking is noted: the owner sees
that at its next renewal and lets go as soon as no job of its own uses the model. It is handed to
who asked last, not to who is quickest, which would be the former owner. So a model moves no more
often than leases are renewed, and nobody waits for an idle owner.

Invariant: every write gives the key a time to live; who dies is forgotten when it has passed.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Literal, Never

from pydantic import TypeAdapter

from contract import redis_keys
from contract.errors import RelayUnavailable
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load

_log = logging.getLogger(__name__)

_ASK_S: Final = 0.25
"""Seconds between two questions of a worker that waits."""
_WANTED_S: Final = 3
"""Seconds after which somebody who asked no more has given up, in whole seconds of Redis."""
LeaseState = Literal["held", "wanted", "lost"]
"""Of a lease: owned; owned, and another worker requests the model; owned by another worker."""
_state: TypeAdapter[LeaseState] = TypeAdapter(LeaseState)


class ModelLeases:
    """What one worker may hold of one backend's models."""

    def __init__(self, connection: Connection, backend: str, worker: str) -> None:
        """Claim in the name of this worker."""
        self._connection = connection
        self._backend = backend
        self._worker = worker
        self._renewals: dict[str, asyncio.Task[Never]] = {}

    async def claim(self, model: str, leave: Callable[[], None]) -> None:
        """Return when the model is this worker's; it is renewed until it is released.

        Waits while another worker has it; bound the wait by the job's deadline. `leave` is called
        at each renewal that finds that another worker waits, or owns it.
        """
        while True:
            if await self._asked(model):
                break
            await asyncio.sleep(_ASK_S)
        self._renewals[model] = asyncio.create_task(self._renew(model, leave))

    async def release(self, model: str) -> None:
        """Let the next worker have the model now; without Redis, when the lease has expired.

        Who is cancelled meanwhile leaves it to the lease, too.
        """
        renewal = self._renewals.pop(model, None)
        if renewal is not None:
            renewal.cancel()
            # Not `await renewal`: its cancellation could not be told from one of ours.
            await asyncio.wait({renewal})
        try:
            await self._connection.call(
                release_lease(self._backend, model, self._worker, wanted_s=_WANTED_S)
            )
        except RelayUnavailable as error:
            _log.warning("model %s is free when its lease expires: %s", model, error)

    async def _asked(self, model: str) -> bool:
        try:
            return await self._connection.call(
                claim_lease(self._backend, model, self._worker, self._lease_ms)
            )
        except RelayUnavailable as error:
            _log.warning("nobody knows who has model %s: %s", model, error)
            return False

    async def _renew(self, model: str, leave: Callable[[], None]) -> Never:
        renewal = renew_lease(
            self._backend, model, self._worker, self._lease_ms, wanted_s=_WANTED_S
        )
        while True:
            await asyncio.sleep(self._connection.settings.renew_s)
            try:
                state = await self._connection.call(renewal)
            except RelayUnavailable as error:
                _log.warning("the lease on model %s was not renewed: %s", model, error)
                continue
            if state != "held":
                _log.info("model %s is %s", model, state)
                leave()

    @property
    def _lease_ms(self) -> int:
        return int(self._connection.settings.lease_s * 1000)


# Scripts of relay/lua/model_leases.


def claim_lease(backend: str, model: str, worker: str, lease_ms: int) -> ScriptCall[bool]:
    """Become the owner, or note that the worker requests the model. Returns whether it owns it."""
    keys = [redis_keys.residence(backend, model)]
    return ScriptCall(load("model_leases/claim"), keys, [worker, lease_ms], bool)


def renew_lease(
    backend: str, model: str, worker: str, lease_ms: int, *, wanted_s: int
) -> ScriptCall[LeaseState]:
    """Stay the owner. A request of another worker counts for `wanted_s` seconds."""
    keys = [redis_keys.residence(backend, model)]
    args: list[Argument] = [worker, lease_ms, wanted_s]
    return ScriptCall(load("model_leases/renew"), keys, args, _read_state)


def release_lease(backend: str, model: str, worker: str, *, wanted_s: int) -> ScriptCall[bool]:
    """Pass the lease to the worker that requested the model last, for `wanted_s` seconds.

    Without such a request the lease ends. False: the worker does not own the model.
    """
    keys = [redis_keys.residence(backend, model)]
    return ScriptCall(load("model_leases/release"), keys, [worker, wanted_s], bool)


def _read_state(reply: bytes) -> LeaseState:
    return _state.validate_python(reply.decode())
