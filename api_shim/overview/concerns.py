"""What an operator should look at first, decided from one state of the fleet. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from api_shim.overview.fleet_state import BackendSummary, Concern, QueueSummary, RedisState
from contract.redis_keys import backend_of
from contract.roster import WorkerReport

OLDEST_S: Final = 300.0
"""Seconds that a job of another class than `batch` may wait before it is a concern."""
_MEMORY_WARNING: Final = 0.8
_MEMORY_CRITICAL: Final = 0.95
"""Shares of `maxmemory`."""
_MOST: Final = 20


class Losses(NamedTuple):
    """Jobs and messages that nobody will work on again without an operator."""

    dead: int
    dead_lately: int
    unreadable: int


def concerns_of(
    queues: Sequence[QueueSummary],
    backends: Sequence[BackendSummary],
    workers: Sequence[WorkerReport],
    losses: Losses | None,
    redis: RedisState | None,
) -> tuple[Concern, ...]:
    """The concerns of a fleet, critical ones first; `losses` and `redis` are for admins."""
    found = [
        *_of_memory(redis),
        *_of_queues(queues),
        *_of_backends(backends),
        *_of_models(workers),
        *_of_losses(losses),
    ]
    return tuple(sorted(found, key=lambda each: each.level != "critical")[:_MOST])


def _of_queues(queues: Sequence[QueueSummary]) -> Iterator[Concern]:
    for queue in queues:
        waiting = queue.depth + queue.delayed
        jobs = f"{waiting} job{'s' * (waiting != 1)}"
        if queue.paused is not None:
            # Outside its run windows it does what it is told; an admin's pause may be forgotten.
            if waiting and queue.paused.by == "admin":
                text = f"{jobs} of {queue.name} wait: {queue.paused.text}."
                yield Concern(level="warning", code="paused", subject=queue.name, text=text)
        elif waiting and queue.is_known:
            text = f"{jobs} of {queue.name} wait for a worker to start."
            yield Concern(level="warning", code="starts_worker", subject=queue.name, text=text)
        elif waiting and not queue.workers:
            text = f"No worker consumes {queue.name}: {jobs} cannot start."
            yield Concern(level="critical", code="no_worker", subject=queue.name, text=text)
        elif queue.urgent and queue.oldest_s is not None and queue.oldest_s > OLDEST_S:
            minutes = round(queue.oldest_s / 60)
            text = f"The oldest job of {queue.name} has waited {minutes} minutes; {jobs} wait."
            yield Concern(level="warning", code="oldest_waits", subject=queue.name, text=text)


def _of_backends(backends: Sequence[BackendSummary]) -> Iterator[Concern]:
    for backend in (each for each in backends if each.workers):
        if backend.circuit_open_until is not None:
            text = (
                f"The circuit of {backend.name} is open until {_clock(backend.circuit_open_until)}"
                f": {backend.error or 'it failed repeatedly'}."
            )
            yield Concern(level="critical", code="circuit_open", subject=backend.name, text=text)
        elif not backend.healthy:
            text = f"{backend.name} does not answer its workers: {backend.error or 'no reason'}."
            yield Concern(level="critical", code="backend_down", subject=backend.name, text=text)
        elif backend.endpoints_down:
            down = ", ".join(backend.endpoints_down[:3])
            text = f"{backend.name} is served without {down}."
            yield Concern(level="warning", code="backend_down", subject=backend.name, text=text)


def _of_models(workers: Sequence[WorkerReport]) -> Iterator[Concern]:
    open_until: dict[tuple[str, str], float] = {}
    for queue in (queue for worker in workers for queue in worker.queues):
        for model, until in (queue.model_circuits or {}).items():
            key = (backend_of(queue.name), model)
            open_until[key] = min(until, open_until.get(key, until))
    for (backend, model), until in sorted(open_until.items()):
        text = f"Jobs for {model} at {backend} wait until {_clock(until)}: it failed repeatedly."
        yield Concern(level="warning", code="circuit_open", subject=model, text=text)


def _of_losses(losses: Losses | None) -> Iterator[Concern]:
    if losses is None:
        return
    if losses.dead_lately:
        text = (
            f"{losses.dead_lately} job{'s' * (losses.dead_lately != 1)} ran out of attempts in the "
            f"last ten minutes; dead letters in all: {losses.dead}."
        )
        yield Concern(level="warning", code="dead_letters", subject="", text=text)
    if losses.unreadable:
        text = f"{losses.unreadable} messages could not be read by any worker."
        yield Concern(level="warning", code="unreadable_messages", subject="", text=text)


def _of_memory(redis: RedisState | None) -> Iterator[Concern]:
    if redis is None or not redis.max_bytes:
        return
    share = redis.used_bytes / redis.max_bytes
    if share >= _MEMORY_WARNING:
        text = (
            f"Redis uses {share:.0%} of its maxmemory; full, it refuses jobs: raise maxmemory or "
            "lower FLEET_LOG_TTL_S."
        )
        level = "critical" if share >= _MEMORY_CRITICAL else "warning"
        yield Concern(level=level, code="redis_memory", subject="", text=text)


def _clock(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%H:%M:%S} UTC"
