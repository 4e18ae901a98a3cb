"""Jobs that do nothing, end to end, one worker each: the fleet beside four task queues.

The fleet's jobs are chats of one word with a model in the worker, each followed to its last event
by one of 64 callers: through `/v1/chat/completions`; *native*: enqueued by one request, followed by
a second; *relay*: without HTTP, enqueued and followed as the shim does it. The others keep no
result, and nobody waits for a single task.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, aclosing
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from pydantic import SecretStr
from pydantic_core import from_json

from bench import peers
from bench.drive import LIMIT_S, connected
from bench.processes import BACKEND, Running, environment, started
from bench.stage import Stage, Through
from bench.targets import Fleet
from bench.wire import Line, get
from contract.chat import ChatRequest, Message
from relay.connection import Connection
from relay.log import Log
from relay.queue import Queue
from relay.settings import RelaySettings
from relay.subscriber import Subscriber, UpcomingJob

JOBS: Final = 1500
AT_ONCE: Final = 64
SCRIPTED: Final = "scripted://?slots=64"
POOL: Final = "workers.celery_pool.pool:AsyncioPool"
WORD: Final = "scripted-story:chunks=1"


class TaskQueue(NamedTuple):
    """How to start a worker, and the module that is also its client."""

    module: str
    worker: str
    python: str
    variables: Mapping[str, str] = {}


def task_queues(stage: Stage) -> dict[str, TaskQueue]:
    """Those that are installed; the others are noted as missing."""
    here = Path(sys.executable).parent
    celery = f"{here}/celery -A bench.queues.noop_celery worker --loglevel ERROR"
    quiet = "--without-gossip --without-mingle --without-heartbeat"
    found = {
        "Celery": TaskQueue(
            "noop_celery", f"{celery} -P custom -c {AT_ONCE} {quiet}", sys.executable,
            {"BENCH_POOL": "ours", "CELERY_CUSTOM_WORKER_POOL": POOL},
        ),
        "Celery, prefork": TaskQueue(
            "noop_celery", f"{celery} -c 2 {quiet}", sys.executable, {"BENCH_POOL": "own"}
        ),
    }  # fmt: skip
    workers = {
        "taskiq": "worker bench.queues.noop_taskiq:broker --workers 1 --log-level ERROR",
        "arq": "bench.queues.noop_arq.Settings --custom-log-dict bench.queues.noop_arq.QUIET",
        "dramatiq": "bench.queues.noop_dramatiq -p 1 -t 8",
    }
    for name, words in workers.items() if stage.plan.with_peers else ():
        if why := peers.why_missing(name):
            stage.figures.missing[name] = why
            continue
        command = f"{peers.program(name, name)} {words}"
        found[name] = TaskQueue(f"noop_{name}", command, str(peers.program(name, "python")))
    return found


async def measure(stage: Stage) -> None:
    """Everybody in turn on one Redis, round for round."""
    with ExitStack() as stack:
        fleet = stack.enter_context(stage.fleet(SCRIPTED))
        queues = task_queues(stage)
        workers = {
            name: stack.enter_context(
                started(
                    f"noop {name}", queue.worker, _variables(queue, fleet.redis_url), stage.folder
                )
            )
            for name, queue in queues.items()
        }
        await _round(stage, fleet, queues, workers, jobs=AT_ONCE)
        stage.figures.values.clear()  # by now everybody has started
        for _ in stage.rounds():
            await _round(stage, fleet, queues, workers, jobs=stage.plan.jobs(JOBS))
    for name in (*WAYS, *queues):
        rate = stage.figures.median(f"{name}/empty_per_s")
        stage.say(f"{name}: {rate or 0:.0f} empty jobs/s")


async def _round(
    stage: Stage,
    fleet: Through,
    queues: Mapping[str, TaskQueue],
    workers: Mapping[str, Running],
    *,
    jobs: int,
) -> None:
    figures = stage.figures
    rates = {name: await way(fleet, jobs) for name, way in WAYS.items()}
    for name, rate in rates.items():
        figures.add(f"{name}/empty_per_s", rate)
    for name, queue in queues.items():
        if name in figures.missing:
            continue
        workers[name].resume()
        try:
            theirs = await _client(queue, jobs, fleet.redis_url)
        except (TimeoutError, ValueError) as error:
            figures.missing[name] = f"it failed: {error}"
            continue
        finally:
            workers[name].pause()  # some of them poll
        figures.add(f"{name}/empty_per_s", theirs)
        if name == "Celery":
            for way, rate in rates.items():
                figures.add(f"{way}/empty_of_celery", rate / theirs)


def _variables(queue: TaskQueue, url: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return environment(BENCH_REDIS_URL=url, PYTHONPATH=root) | dict(queue.variables)


async def _client(queue: TaskQueue, jobs: int, url: str) -> float:
    """Tasks a second; raises TimeoutError, ValueError with what the client printed."""
    client = await asyncio.create_subprocess_exec(
        queue.python, "-m", f"bench.queues.{queue.module}", str(jobs),
        env=_variables(queue, url), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            told, errors = await client.communicate()
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    if client.returncode:
        raise ValueError(errors.decode(errors="replace").strip()[-300:])
    return float(told)


async def _drop_in(way: Through, jobs: int) -> float:
    """Jobs a second through `/v1/chat/completions`."""

    async def job(line: Line) -> None:
        heard = await way.target.chat(line, WORD)
        if b"[DONE]" not in heard.answer.body:
            raise ValueError(f"a job without its end: {heard.answer.body[-300:]!r}")

    return await _over_http(way, jobs, job)


async def _native(way: Through, jobs: int) -> float:
    """Jobs a second by two requests: enqueue, then follow on the same connection."""
    native = Fleet(way.target.port, BACKEND)

    async def job(line: Line) -> None:
        accepted = await line.ask(native.request(WORD))
        url = str(from_json(accepted.body)["events_url"])
        answer = await line.ask(get(url, "application/x-ndjson"), b'"type":"delta"')
        if b'"type":"done"' not in answer.body:
            raise ValueError(f"a job without its end: {answer.body[-300:]!r}")

    return await _over_http(way, jobs, job)


async def _over_http(way: Through, jobs: int, job: Callable[[Line], Awaitable[None]]) -> float:
    left = iter(range(jobs))

    async def caller(line: Line) -> None:
        for _ in left:
            await job(line)

    async with connected(way.target.port, min(AT_ONCE, jobs)) as lines, asyncio.timeout(LIMIT_S):
        began = perf_counter()
        async with asyncio.TaskGroup() as group:
            for line in lines:
                group.create_task(caller(line))
        return jobs / (perf_counter() - began)


async def _relay(way: Through, jobs: int) -> float:
    """Jobs a second without HTTP."""
    request = ChatRequest(model=WORD, messages=(Message(role="user", content="hi"),))
    left = iter(range(jobs))
    async with Connection.open(RelaySettings(redis_url=SecretStr(way.redis_url))) as connection:
        queue, subscriber = Queue(connection), Subscriber(connection, expects_jobs=True)
        log = Log(connection, subscriber)

        async def caller() -> None:
            for _ in left:
                upcoming = subscriber.expect()
                await queue.enqueue(request, queue=f"{BACKEND}.chat", new_job_id=upcoming.job_id)
                await _to_its_end(log, upcoming)

        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            listening = group.create_task(subscriber.listen())
            began = perf_counter()
            callers = [group.create_task(caller()) for _ in range(min(AT_ONCE, jobs))]
            await asyncio.wait(callers)
            took = perf_counter() - began
            listening.cancel()
    return jobs / took


async def _to_its_end(log: Log, job: UpcomingJob) -> None:
    async with aclosing(log.follow_expected(job)) as pages:
        async for frames in pages:
            if frames and frames[-1].is_last:
                return
    raise ValueError(f"job {job.job_id} has no end")


WAYS: Final = {"fleet": _drop_in, "native": _native, "relay": _relay}
