"""How much of its ended jobs each tenant gives up, so that Redis has room. Pure."""

from collections.abc import Mapping


def to_free(used_bytes: int, limit_bytes: int, high_water: float, job_bytes: int) -> int:
    """Bytes of jobs that are too many in a Redis that uses so many of so many.

    It goes a twentieth below the mark, so that not every pass has to remove some. Jobs keep what is
    above the mark in any case: where something else fills Redis, they need not all go for it.
    """
    target = (high_water - 0.05) * limit_bytes
    return max(0, int(min(used_bytes - target, job_bytes - (1 - high_water) * limit_bytes)))


def excess(kept: Mapping[str, int], free_bytes: int) -> dict[str, int]:
    """The bytes that each tenant gives up, of those that it keeps, to free so many together.

    The largest come down to one level, below which nobody gives anything: of whom keeps less than
    that, nothing is taken, whatever the others keep.
    """
    level, left = 0.0, float(free_bytes)
    largest = sorted(kept.values(), reverse=True)
    for count, (size, following) in enumerate(zip(largest, [*largest[1:], 0], strict=False), 1):
        level = size - left / count
        if level >= following:
            break
        left -= count * (size - following)
    level = max(0.0, level)
    found = {tenant: int(size - level) for tenant, size in kept.items()}
    return {tenant: size for tenant, size in found.items() if size > 0}
