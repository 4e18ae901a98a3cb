"""Thousands of jobs of a noisy tenant in a list of all tenants' jobs."""

from contract import redis_keys
from support.relay import Relay

_MANY = 5_100


async def crowd(relay: Relay, index: str, score: float) -> None:
    """Add jobs of a tenant `noisy` to a list of Redis, all with about this score."""
    ids = [f"{number:032x}" for number in range(_MANY)]
    await relay.connection.pipeline(
        [("HSET", redis_keys.record(id), "tenant", "noisy") for id in ids]
        + [("EXPIRE", redis_keys.record(id), 60) for id in ids]
        + [("ZADD", index, f"{score + at / 1000:.6f}", id) for at, id in enumerate(ids)]
    )
