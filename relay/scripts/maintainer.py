"""Scripts of the maintainer's lease (relay/lua/maintainer)."""

from contract import redis_keys
from relay.connection import Argument, ScriptCall
from relay.scripts.loader import load


def renew(worker: str, ttl_ms: int) -> ScriptCall[bool]:
    """Take or renew the lease and publish the worker's name; false: another worker has it."""
    args: list[Argument] = [worker, ttl_ms, redis_keys.MAINTAINER_CHANNEL]
    return ScriptCall(load("maintainer/renew"), [redis_keys.MAINTAINER], args, bool)


def resign(worker: str) -> ScriptCall[bool]:
    """Give the lease back and publish an empty message; false: the worker does not have it."""
    args: list[Argument] = [worker, redis_keys.MAINTAINER_CHANNEL]
    return ScriptCall(load("maintainer/resign"), [redis_keys.MAINTAINER], args, bool)
