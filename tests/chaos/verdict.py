"""Were the promises kept? Every log against what its callers saw and what was to come of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from pydantic_core import from_json

from chaos.callers import Tale, View
from chaos.errands import Answer
from contract.errors import RelayUnavailable
from contract.events import LAST_WORDS, EventId, Failed, Frame, Image, Queued
from contract.json_lines import one_line
from contract.result import Result, fold


class Broken(NamedTuple):
    """A promise that was not kept."""

    promise: str
    job: str
    detail: str


class Replay(NamedTuple):
    """What a follower gets after a cursor, once all is over."""

    cursor: EventId
    frames: Sequence[Frame]


@dataclass(frozen=True)
class Job:
    """A job as Redis holds it at the end."""

    id: str
    status: str
    errand: int | None
    tries: int
    frames: Sequence[Frame]
    is_compacted: bool = True
    replays: Sequence[Replay] = ()


def judge(jobs: dict[str, Job], tales: Iterable[Tale]) -> Iterator[Broken]:
    """All that is wrong, job by job."""
    for job in jobs.values():
        yield from judge_log(job)
        yield from judge_queue(job)
        yield from judge_replays(job)
    if len(jobs) > 2 * sum(job.is_compacted for job in jobs.values()):
        yield Broken("ended jobs are compacted", "", f"of {len(jobs)} not even half")
    for tale in tales:
        job = jobs.get(tale.job)
        for problem in tale.problems:
            yield Broken("a caller is answered", tale.job, f"{tale.errand.what}: {problem}")
        if job is None:
            yield Broken("no job is lost", tale.job, f"errand {tale.errand.number}: no record")
            continue
        for view in tale.views:
            yield from judge_view(job, view)
        yield from judge_answer(job, _answer_of(tale, jobs))
        yield from judge_times(job, tale, jobs)
        yield from judge_cancels(job, tale)
    yield from judge_doubles(jobs.values())


def _answer_of(tale: Tale, jobs: dict[str, Job]) -> Answer:
    """What must come of it, by what became of the job that it waited for."""
    parent = jobs.get(tale.parent)
    if parent is None or tale.errand.after_any or parent.status == "done":
        return tale.errand.answer
    return Answer(frozenset({"failed"}), frozenset({"parent_failed"}), content="")


def judge_times(job: Job, tale: Tale, jobs: dict[str, Job]) -> Iterator[Broken]:
    """A scheduled job starts at its time or later, a child after the end of its parent."""
    started = [_at(frame) for frame in job.frames if frame.type == "started"]
    if not started:
        return
    if tale.not_before is not None and started[0] < tale.not_before - _CLOCK_S:
        early_s = tale.not_before - started[0]
        yield Broken("no job starts before its time", job.id, f"{early_s:.2f} s early")
    parent = jobs.get(tale.parent)
    if parent is not None and started[0] < _at(parent.frames[-1]) - _CLOCK_S:
        yield Broken("a child starts after its parent's end", job.id, f"parent: {parent.id}")


def judge_pauses(
    jobs: Iterable[Job], pauses: Iterable[tuple[str, float, float]]
) -> Iterator[Broken]:
    """No job of a paused queue starts, once claims of before the pause have had their lease."""
    spans = [(queue, since + _CLAIMED_BEFORE_S, until) for queue, since, until in pauses]
    for job in jobs:
        for frame in job.frames:
            if frame.type != "started":
                continue
            for queue, since, until in spans:
                if queue == _queue_of(job) and since < _at(frame) < until:
                    detail = f"{frame.id} {_at(frame) - since:.2f} s after that, of {queue}"
                    yield Broken("no job of a paused queue starts", job.id, detail)


_CLOCK_S = 0.01
"""Times in events are rounded to a millisecond."""
_CLAIMED_BEFORE_S = 8.5
"""A lease, and what the next maintainer takes to find that it has expired."""


def _at(frame: Frame) -> float:
    return float(from_json(frame.body)["at"])


def _queue_of(job: Job) -> str:
    first = job.frames[0].event
    return first.queue if isinstance(first, Queued) else ""


def judge_log(job: Job) -> Iterator[Broken]:
    """One last word, at the end; ids that only rise, without a gap."""
    last = [at for at, frame in enumerate(job.frames) if frame.type in LAST_WORDS]
    if last != [len(job.frames) - 1]:
        yield Broken("exactly one last word ends a log", job.id, f"at {last} of {len(job.frames)}")
    elif job.status != job.frames[-1].type:
        yield Broken("the record says what the log says", job.id, f"record: {job.status}")
    ids = [frame.id for frame in job.frames]
    for before, after in pairwise(ids):
        if not _follows(before, after):
            yield Broken("ids rise without a gap", job.id, f"{before} then {after}")


def judge_queue(job: Job) -> Iterator[Broken]:
    """The audit is for a Redis that forgets; here it does not."""
    for frame in job.frames:
        if isinstance(event := frame.event, Queued) and event.reason == "its queue lost it":
            yield Broken("no queue loses a job that runs", job.id, f"before {frame.id}")


def judge_replays(job: Job) -> Iterator[Broken]:
    """A cursor gets exactly the rest, from a compacted log, too."""
    for cursor, frames in job.replays:
        rest = [frame.body for frame in job.frames if frame.id is not None and frame.id > cursor]
        if [frame.body for frame in frames] != rest:
            detail = f"after {cursor}: {len(frames)} events, not {len(rest)}"
            yield Broken("a cursor gets exactly the rest", job.id, detail)


def _follows(before: EventId | None, after: EventId | None) -> bool:
    if before is None or after is None:
        return False
    return after in (
        EventId(before.attempt, before.seq + 1),
        EventId(before.attempt + 1, 0),
    )


_LINES = {"sse", "ndjson"}
"""Ways whose events are lines, in which the characters that end one are escaped."""


def judge_view(job: Job, view: View) -> Iterator[Broken]:
    """A follower saw the log, byte for byte, whatever happened on the way."""
    for problem in view.problems:
        yield Broken("a follower is served", job.id, problem)
    if view.log_resets:
        yield Broken("no log_reset while Redis loses nothing", job.id, f"{view.log_resets} times")
    seen, logged = [event.body for event in view.heard], [frame.body for frame in job.frames]
    if view.visit.way in _LINES:
        logged = [one_line(body) for body in logged]
    if not view.visit.returns:
        logged = logged[: len(seen)]
    if seen != logged:
        at = next(
            (at for at, (a, b) in enumerate(zip(seen, logged, strict=False)) if a != b),
            min(len(seen), len(logged)),
        )
        detail = f"{view.visit.way}: {len(seen)} events of {len(logged)}, differ at {at}"
        yield Broken("every follower sees the log", job.id, detail)
    elif view.is_over and fold(frame.event for frame in job.frames) != fold(_events(view)):
        yield Broken("every follower sees the log", job.id, "its fold differs")


def _events(view: View) -> Iterator[object]:
    return (Frame(EventId.parse(e.id), e.type, e.body).event for e in view.heard)


def judge_answer(job: Job, answer: Answer) -> Iterator[Broken]:
    """What was said is what the backend was told to say."""
    result = fold(frame.event for frame in job.frames)
    code = result.error.code if result.error else None
    if result.status not in answer.statuses:
        detail = f"{result.status} ({code}) after {job.tries} tries, not {set(answer.statuses)}"
        yield Broken("a job ends as it must", job.id, detail)
    elif code is not None and code not in answer.codes:
        yield Broken("a job ends as it must", job.id, f"{code}, not one of {set(answer.codes)}")
    for name, wrong in _differences(result, answer):
        yield Broken("nothing is lost or doubled in an answer", job.id, f"{name}: {wrong}")


def _differences(result: Result, answer: Answer) -> Iterator[tuple[str, str]]:
    is_whole = result.status == "done"
    for name in ("content", "thinking"):
        said, right = getattr(result, name), getattr(answer, name)
        if right is not None and (said != right if is_whole else not right.startswith(said)):
            yield name, _where(said, right)
    if not is_whole:
        return
    calls = tuple((call.name, call.arguments) for call in result.tool_calls)
    images = tuple(image.data for image in result.images if _is_final(image))
    vectors = result.embeddings.data if result.embeddings else None
    for name, told, expected in (
        ("tools", calls, answer.tools),
        ("images", images, answer.images),
        ("vectors", vectors, answer.vectors),
    ):
        if expected is not None and told != expected:
            yield name, _where(str(told), str(expected))


def _is_final(image: Image) -> bool:
    return not image.partial


def _where(said: str, right: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(said, right, strict=False)) if a != b), -1)
    at = min(len(said), len(right)) if at < 0 else at
    return f"{len(said)} characters of {len(right)}; at {at} {said[at : at + 40]!r}"


def judge_cancels(job: Job, tale: Tale) -> Iterator[Broken]:
    """A cancel is final at once, and the same answer again."""
    for record in tale.cancels:
        if record["status"] not in LAST_WORDS:
            yield Broken("a cancel is final at once", job.id, f"answered {record['status']}")
        elif record["status"] != job.status:
            yield Broken("a cancel is final", job.id, f"{record['status']}, then {job.status}")


def judge_doubles(jobs: Iterable[Job]) -> Iterator[Broken]:
    """One errand, one job, however often its caller had to ask (Idempotency-Key)."""
    first: dict[int, str] = {}
    for job in jobs:
        if _was_refused(job):
            continue
        if job.errand is not None and first.setdefault(job.errand, job.id) != job.id:
            detail = f"errand {job.errand} has {first[job.errand]}, too"
            yield Broken("asked again is not done twice", job.id, detail)


def _was_refused(job: Job) -> bool:
    """Whether its enqueue was answered 503 and it never began: its key is free, as documented.

    A caller who was told that such a job is accepted is another matter: `judge_answer` sees it.
    """
    last = job.frames[-1].event if job.frames else None
    has_begun = any(frame.type == "started" for frame in job.frames)
    return isinstance(last, Failed) and last.code == RelayUnavailable.code and not has_begun
