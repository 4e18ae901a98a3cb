"""Leases on models that a worker loads into its own memory: one owner per model.

A worker that needs a model of another owner repeats its claim, which records the request: the owner
sees it at its next renewal and releases the model as soon as none of its jobs uses it. The lease
passes to the worker that requested it last, not to the fastest one, which would be the former
owner. So a model moves no more often than leases are renewed, and no worker waits for an idle
owner.

Invariant: every write sets a time to live, so the lease of a dead worker expires.
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
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_CLAIM_INTERVAL_S: Final = 0.25
"""Seconds between two claims of a worker that waits."""
_WANTED_S: Final = 3
"""Seconds after which a request that is not repeated does not count; whole seconds in Redis."""
LeaseState = Literal["held", "wanted", "lost"]
"""Of a lease: owned; owned, and another worker requests the model; owned by another worker."""
_state: TypeAdapter[LeaseState] = TypeAdapter(LeaseState)


class ModelLeases:
    """The leases of one worker on one backend's models."""

    def __init__(self, connection: Connection, backend: str, worker: str) -> None:
        """Claim for this worker."""
        self._connection = connection
        self._backend = backend
        self._worker = worker
        self._renewals: dict[str, asyncio.Task[Never]] = {}

    async def claim(self, model: str, leave: Callable[[], None]) -> None:
        """Return once this worker owns the model; the lease is renewed until it is released.

        Waits without a bound while another worker owns it. `leave` is called at each renewal that
        finds that another worker requests the model, or owns it.
        """
        while not await self._claimed(model):  # noqa: ASYNC110 - another process decides it
            await asyncio.sleep(_CLAIM_INTERVAL_S)
        self._renewals[model] = asyncio.create_task(self._renew(model, leave))

    async def release(self, model: str) -> None:
        """Pass the model to the next worker now; without Redis, when the lease has expired.

        If this is cancelled, the lease expires, too.
        """
        renewal = self._renewals.pop(model, None)
        if renewal is not None:
            renewal.cancel()
            # Not `await renewal`: its cancellation looks the same as one of this task.
            await asyncio.wait({renewal})
        try:
            await self._connection.call(
                release_lease(self._backend, model, self._worker, wanted_s=_WANTED_S)
            )
        except RelayUnavailable as error:
            _repeated.warn("model %s is free when its lease expires: %s", model, error)

    async def _claimed(self, model: str) -> bool:
        try:
            return await self._connection.call(
                claim_lease(self._backend, model, self._worker, self._lease_ms)
            )
        except RelayUnavailable as error:
            _repeated.warn("the owner of model %s is unknown: %s", model, error)
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
                _repeated.warn("the lease on model %s was not renewed: %s", model, error)
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
    return _state.validate_python(reply.decode(errors="replace"))
