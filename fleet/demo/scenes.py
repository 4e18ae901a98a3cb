"""Two scenes: a subscriber that disconnects, and a worker that dies."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from contract.chat import ChatRequest, Message
from contract.events import (
    BEGINNING,
    Delta,
    EventId,
    Frame,
    Reset,
    Resumed,
    Started,
)
from contract.result import fold
from fleet.client.job import AsyncJob
from fleet.demo.narrator import Narrator, promise
from fleet.demo.stage import Stage

_WORDS_BEFORE = 25
"""Fragments to receive before the subscriber disconnects, or the worker is killed."""
_MISSED = 10
"""Events to wait for while the subscriber is disconnected."""
_MISSED_WITHIN_S = 60.0
_LOOK_S = 0.05
_CHUNKS = 100


async def dropped_subscriber(stage: Stage, narrator: Narrator) -> None:
    """Stream an answer, disconnect, resume on the other shim; nothing is lost or repeated."""
    narrator.scene(
        "1 · The subscriber disconnects",
        "An answer streams from the first shim. The connection is closed in the middle; the "
        "subscriber resumes at a second shim after the last event received.",
    )
    job = await stage.first.enqueue(_request(stage, "Tell a short story about a queue."))
    narrator.say(f"job {job.id} through {stage.fleet.plan.urls[0]}")
    began_at = time.monotonic()
    seen = await _seen(job, narrator, "cyan", stop_after=_WORDS_BEFORE)
    first_s = time.monotonic() - began_at
    cursor = _ids(seen)[-1]
    narrator.end_words()
    narrator.say(f"disconnected after event {cursor}; the answer continues", "red")
    missed = await _happened_after(stage, job.id, cursor)
    narrator.say(f"{missed} events later: connected again, to {stage.fleet.plan.urls[1]}")
    seen += await _seen(stage.second.job(job.id), narrator, "green", after=cursor)
    narrator.end_words()
    log = [frame async for frame in stage.first.job(job.id).frames()]
    promise(_ids(seen) == _ids(log), "the events seen are those of the log, once each, in order")
    promise(_bodies(seen) == _bodies(log), "every event has the same bytes for every reader")
    result = fold(frame.event for frame in log)
    promise(result.status == "done", f"the job ends well (it ended {result.status})")
    narrator.measured(
        "disconnected and resumed elsewhere: nothing lost, nothing repeated",
        f"{len(_ids(log))} events, {missed} while disconnected, after {first_s:.1f} s",
    )


async def killed_worker(stage: Stage, narrator: Narrator) -> None:
    """Kill the worker in the middle of an answer; the answer is complete all the same."""
    narrator.scene(
        "2 · The worker dies",
        "The worker that runs the job is killed with -9 in the middle of its answer. Another one "
        "takes over the job, and late events of the dead one are rejected.",
    )
    request = _request(stage, "Tell another story, about a worker that never gave up.")
    job = await stage.first.enqueue(request)
    seen = await _seen(job, narrator, "cyan", stop_after=_WORDS_BEFORE)
    started = next(frame.event for frame in seen if isinstance(frame.event, Started))
    narrator.end_words()
    pid = stage.fleet.worker_pid(started.worker)
    promise(pid is not None, f"the worker {started.worker} is one of ours")
    os.kill(pid or 0, signal.SIGKILL)
    killed_at = time.monotonic()
    narrator.say(f"kill -9 {pid} ({started.worker})", "red")
    again_s = None
    async with aclosing(job.frames(_ids(seen)[-1])) as frames:
        async for frame in frames:
            seen.append(frame)
            again_s = _after_death(frame, narrator, killed_at, again_s)
    narrator.end_words()
    result = fold(frame.event for frame in seen)
    promise(result.status == "done", f"the job ends well (it ended {result.status})")
    promise(result.attempt > 1, "another attempt finished it")
    promise(sum(frame.is_last for frame in seen) == 1, "there is exactly one terminal event")
    promise(
        _ids(seen) == sorted(set(_ids(seen))),
        "event ids only increase",
    )
    if stage.is_scripted:
        whole = await stage.first.enqueue(_request(stage, request.messages[0].text, rate=0))
        expected = (await whole.result()).content
        promise(result.content == expected, "the answer is the same as without a kill")
    narrator.measured(
        "a worker killed with -9: the answer is complete",
        f"next text {again_s or 0:.2f} s after the kill; attempt {result.attempt}",
    )


def _after_death(
    frame: Frame, narrator: Narrator, killed_at: float, again_s: float | None
) -> float | None:
    match frame.event:
        case Started(worker=worker, attempt=attempt):
            narrator.say(f"{worker} runs the job, attempt {attempt}")
        case Resumed(reason=reason):
            narrator.say(f"the answer continues after the text so far ({reason})")
        case Reset(reason=reason):
            narrator.say(f"the answer restarts, and every reader gets a reset event ({reason})")
        case Delta(content=str(words)):
            alive = frame.id is not None and frame.id.attempt > 1
            narrator.words(words, "green" if alive else "cyan")
            return again_s or (time.monotonic() - killed_at if alive else None)
        case _:
            pass
    return again_s


def _request(stage: Stage, prompt: str, rate: int = 80) -> ChatRequest:
    model = stage.chat.name
    if stage.is_scripted:
        model = f"scripted-story:chunks={_CHUNKS}" + (f",rate={rate}" if rate else "")
    messages = (Message(role="user", content=prompt),)
    return ChatRequest(model=model, backend=stage.chat.backend, messages=messages, max_tokens=150)


async def _seen(
    job: AsyncJob,
    narrator: Narrator,
    style: str,
    after: EventId = BEGINNING,
    stop_after: int | None = None,
) -> list[Frame]:
    """Print text up to the end, or up to `stop_after` fragments; returns the frames."""
    seen: list[Frame] = []
    fragments = 0
    frames: AsyncGenerator[Frame, None]
    async with aclosing(job.frames(after)) as frames:
        async for frame in frames:
            seen.append(frame)
            if isinstance(event := frame.event, Delta):
                narrator.words(event.content or event.thinking or "", style)
                fragments += 1
            if fragments == stop_after:
                break
    return seen


async def _happened_after(stage: Stage, job_id: str, cursor: EventId) -> int:
    """Wait for ten events after the cursor, or the end of the job; returns how many."""
    missed = 0
    async with asyncio.timeout(_MISSED_WITHIN_S):
        async with aclosing(stage.second.job(job_id).frames(cursor)) as frames:
            async for _ in frames:
                missed += 1
                if missed == _MISSED:
                    break
    return missed


def _ids(frames: list[Frame]) -> list[EventId]:
    return [frame.id for frame in frames if frame.id is not None]


def _bodies(frames: list[Frame]) -> list[bytes]:
    return [frame.body for frame in frames if frame.id is not None]
