"""Scripts of the lease on a model in a worker's memory (relay/lua/model_leases)."""

from typing import Literal

from pydantic import TypeAdapter

from contract import redis_keys
from relay.connection import Argument, ScriptCall
from relay.scripts.loader import load

State = Literal["held", "wanted", "lost"]
"""Of a lease: owned; owned, and another worker requests the model; owned by another worker."""
_state: TypeAdapter[State] = TypeAdapter(State)


def claim(backend: str, model: str, worker: str, lease_ms: int) -> ScriptCall[bool]:
    """Become the owner, or note that the worker requests the model. Returns whether it owns it."""
    keys = [redis_keys.residence(backend, model)]
    return ScriptCall(load("model_leases/claim"), keys, [worker, lease_ms], bool)


def renew(
    backend: str, model: str, worker: str, lease_ms: int, *, wanted_s: int
) -> ScriptCall[State]:
    """Stay the owner. A request of another worker counts for `wanted_s` seconds."""
    keys = [redis_keys.residence(backend, model)]
    args: list[Argument] = [worker, lease_ms, wanted_s]
    return ScriptCall(load("model_leases/renew"), keys, args, _read_state)


def release(backend: str, model: str, worker: str, *, wanted_s: int) -> ScriptCall[bool]:
    """Pass the lease to the worker that requested the model last, for `wanted_s` seconds.

    Without such a request the lease ends. False: the worker does not own the model.
    """
    keys = [redis_keys.residence(backend, model)]
    return ScriptCall(load("model_leases/release"), keys, [worker, wanted_s], bool)


def _read_state(reply: bytes) -> State:
    return _state.validate_python(reply.decode())
