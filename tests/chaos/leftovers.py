"""What is left when all is over: nothing but records and logs that expire, and named owners."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator
from typing import Any

from celery import Celery

from chaos.callers import Tale
from chaos.cast import Cast
from chaos.verdict import Broken, Job, Replay
from contract import redis_keys
from contract.errors import JobNotFound
from contract.events import Frame
from contract.jobs import JobRecord

_OWNED = re.compile(
    r"fleet:(recent|queues|roster|dead|idempotency|tenants|keys|compacted|unsettled|outbox|webhooks)$"
    r"|fleet:t:[^:]+:webhook:secrets$|_kombu\.binding.*$"
)
"""Keys without a TTL whose owner ARCHITECTURE.md names: they hold no job that lives."""
_RECORD = re.compile(r"fleet:j:([0-9a-f]{32}):record$")
_SETTLES_WITHIN_S = 90.0
"""Kombu gives up a half-open pub/sub connection, over which Celery asks, after 66 s."""
_CONTROL_TIMEOUT_S = 3.0
_REPLAYS = 4
"""Cursors from which each log is read again."""


async def settled(cast: Cast) -> list[Broken]:
    """Look until nothing is left; what is left when time is up."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _SETTLES_WITHIN_S
    while left := [broken async for broken in _left(cast)]:
        if loop.time() > give_up_at:
            return left
        await asyncio.sleep(0.5)
    return []


async def _left(cast: Cast) -> AsyncGenerator[Broken, None]:
    redis = cast.relay.connection
    for key in await keys(cast):
        if await redis.command("TTL", key) == -1 and not _OWNED.match(key):
            kind = (await redis.command("TYPE", key)).decode()
            yield Broken("nothing is left behind", "", f"{key} ({kind})")
    for channel in await redis.command("PUBSUB", "CHANNELS", "fleet:j:*"):
        yield Broken("nobody listens to what is over", "", channel.decode())
    for model, count in _open_streams(cast):
        yield Broken("no stream is left open", "", f"{model}: {count}")
    for task in [*await _in_flight(cast), *await _not_idle(cast)]:
        yield Broken("no task is left", "", task)


def _open_streams(cast: Cast) -> list[tuple[str, int]]:
    open = [item for streams in cast.streams for item in streams.open.items()]
    return [(model, count) for model, count in open if count]


async def _in_flight(cast: Cast) -> list[str]:
    reports = await cast.relay.roster.workers()
    return [
        f"{report.name}: {queue.in_flight} in {queue.name}"
        for report in reports
        for queue in report.queues
        if queue.in_flight
    ]


async def _not_idle(cast: Cast) -> list[str]:
    """Workers that run a task or do not answer Celery's own question."""

    def ask() -> dict[str, list[Any]]:
        with Celery("verdict", broker=cast.redis.url, set_as_current=False) as app:
            answers = app.control.inspect(timeout=_CONTROL_TIMEOUT_S).active()
            return dict(answers or {})

    answers = {name.partition("@")[0]: tasks for name, tasks in (await _threaded(ask)).items()}
    lives = [player.lives[-1] for player in cast.workers.values()]
    busy = [f"{life}: {len(answers[life])} tasks" for life in lives if answers.get(life)]
    return [*busy, *(f"{life} does not answer" for life in lives if life not in answers)]


async def _threaded(ask: Any) -> dict[str, list[Any]]:
    return await asyncio.to_thread(ask)


async def keys(cast: Cast) -> list[str]:
    """Every key there is."""
    found: list[str] = []
    cursor = b"0"
    while True:
        cursor, page = await cast.relay.connection.command("SCAN", cursor, "COUNT", 1000)
        found += [key.decode() for key in page]
        if int(cursor) == 0:
            return sorted(set(found))


async def all_jobs(cast: Cast) -> dict[str, Job]:
    """Every job in Redis, those that no caller knows of, too."""
    jobs: dict[str, Job] = {}
    for key in await keys(cast):
        if match := _RECORD.match(key):
            jobs[match[1]] = await _job(cast, await cast.relay.records.get(match[1]))
    return jobs


async def _job(cast: Cast, record: JobRecord) -> Job:
    frames = [frame async for page in cast.relay.log.read(record.id) for frame in page]
    key = redis_keys.record(record.id)
    return Job(
        record.id,
        record.status,
        int(errand) if (errand := record.metadata.get("errand")) else None,
        record.tries,
        tuple(frames),
        is_compacted=bool(await cast.relay.connection.command("HEXISTS", key, "compacted")),
        replays=tuple(await _replays(cast, record.id, frames)),
    )


async def _replays(cast: Cast, job: str, frames: list[Frame]) -> list[Replay]:
    """What a few returning followers of an ended job get."""
    if not frames or not frames[-1].is_last:
        return []
    some = random.Random(job).sample(frames, min(_REPLAYS, len(frames)))
    ids = [frame.id for frame in some if frame.id is not None]
    return [Replay(id, tuple(await cast.relay.frames(job, id))) for id in ids]


async def story_of(cast: Cast, job: str) -> str:
    """A job's record and log, for whoever looks for the cause."""
    try:
        record = await cast.relay.records.get(job)
    except JobNotFound:
        return "no record"
    lines = [record.model_dump_json(exclude_none=True)]
    async for page in cast.relay.log.read(job):
        lines += [frame.to_wire().decode()[:300] for frame in page]
    if len(lines) > 80:
        lines = [*lines[:40], f"... {len(lines) - 80} more ...", *lines[-40:]]
    return "\n".join(lines)


def not_closed(cast: Cast, tales: list[Tale], within_s: float) -> list[Broken]:
    """Cancelled jobs whose backend was still talking that long after the cancel's answer."""
    late = []
    for tale in tales:
        for streams in cast.streams:
            closed_at = streams.closed_at.get(tale.errand.model)
            if tale.cancelled_at is None or closed_at is None:
                continue
            if closed_at - tale.cancelled_at > within_s:
                took = f"{tale.errand.model}: {closed_at - tale.cancelled_at:.1f} s"
                late.append(Broken("a cancel closes the backend's socket", tale.job, took))
    return late
