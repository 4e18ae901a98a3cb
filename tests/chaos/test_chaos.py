"""What a schedule must be for a seed to repeat it, and a verdict for it to be worth anything."""

import random
from dataclasses import replace

import pytest
from support.receiver import Received

from chaos.callers import Heard, Tale, View
from chaos.errands import Answer, Errand, Visit, errands
from chaos.faults import DEEDS
from chaos.ledger import judge_ledger
from chaos.receivers import judge_told
from chaos.schedule import KINDS, plan
from chaos.verdict import Job, Replay, judge, judge_pauses
from contract.events import Cancelled, Delta, Done, Event, EventId, Failed, Frame, Queued, Started
from contract.usage import UsageCounts

ID = "0" * 32
BEGUN: list[tuple[str, Event]] = [
    ("1-0", Queued(queue="box.chat")),
    ("1-1", Started(attempt=1, worker="w", backend="box")),
    ("1-2", Delta(content="one")),
    ("1-3", Delta(content=" two")),
]
GOOD = [*BEGUN, ("1-4", Done())]


def log(events: list[tuple[str, Event]]) -> list[Frame]:
    return [Frame.of(EventId.parse(id), 1.0, event) for id, event in events]


def verdict(
    events: list[tuple[str, Event]] = GOOD, *, seen: list[Frame] | None = None, **tale: object
) -> set[str]:
    """The promises that are broken where a log and what a follower saw are these."""
    frames = log(events)
    job = Job(ID, frames[-1].type, 7, 1, frames)
    errand = Errand(7, 0.0, "story", "chat", {}, Answer(content="one two"))
    view = View(Visit(0.0))
    view.heard = [Heard(str(f.id), f.type, f.body) for f in (frames if seen is None else seen)]
    told = Tale(errand, ID, views=[view], **tale)  # type: ignore[arg-type]
    return {broken.promise for broken in judge({ID: job}, [told])}


def test_a_seed_is_a_plan() -> None:
    assert plan(7, 60) == plan(7, 60)
    assert plan(7, 60) != plan(8, 60)


def test_every_kind_of_fault_has_its_turn_within_two_minutes() -> None:
    assert {fault.kind for fault in plan(1, 120).faults} == set(KINDS) == set(DEEDS)


def test_nothing_new_breaks_at_the_end() -> None:
    assert max(fault.at_s for fault in plan(1, 60).faults) < 50


def test_no_two_chats_share_a_model() -> None:
    asked = errands(random.Random(1), 300, 2.0, with_real=False)
    models = [errand.model for errand in asked if errand.kind == "chat"]

    assert len(models) == len(set(models))


def test_a_whole_answer_is_fine() -> None:
    assert verdict() == set()


@pytest.mark.parametrize(
    ("events", "promise"),
    [
        (BEGUN, "exactly one last word ends a log"),
        ([*GOOD, ("1-5", Done())], "exactly one last word ends a log"),
        ([*GOOD, ("2-0", Queued(queue="box.chat"))], "exactly one last word ends a log"),
        ([*GOOD[:3], ("1-4", Delta(content=" two")), ("1-5", Done())], "ids rise without a gap"),
        (
            [*BEGUN, ("2-0", Queued(queue="q", reason="its queue lost it")), ("2-1", Done())],
            "no queue loses a job that runs",
        ),
        ([*BEGUN, ("3-0", Done())], "ids rise without a gap"),
        (
            [*BEGUN, ("1-4", Delta(content=" two")), ("1-5", Done())],
            "nothing is lost or doubled in an answer",
        ),
        ([*BEGUN[:3], ("1-3", Done())], "nothing is lost or doubled in an answer"),
        ([*BEGUN, ("1-4", Failed(code="server_fault", message=""))], "a job ends as it must"),
        ([*BEGUN, ("2-0", Cancelled(by="caller"))], "a job ends as it must"),
    ],
)
def test_a_wrong_log_is_seen(events: list[tuple[str, Event]], promise: str) -> None:
    assert promise in verdict(events)


def test_a_follower_who_missed_or_doubled_an_event_is_seen() -> None:
    frames = log(GOOD)

    for seen in ([*frames[:2], *frames[3:]], [*frames[:3], *frames[2:]], frames[:-1], []):
        assert verdict(seen=seen) == {"every follower sees the log"}


def test_a_follower_who_saw_other_bytes_is_seen() -> None:
    other = log([*GOOD[:2], ("1-2", Delta(content="One")), *GOOD[3:]])

    assert verdict(seen=other) == {"every follower sees the log"}


def test_a_cursor_that_got_another_rest_and_logs_that_stay_large_are_seen() -> None:
    frames = log(GOOD)
    for rest in (frames[2:], frames[4:], []):
        job = Job(ID, "done", 7, 1, frames, replays=[Replay(EventId(1, 2), rest)])
        assert {broken.promise for broken in judge({ID: job}, [])} == {
            "a cursor gets exactly the rest"
        }
    large = Job(ID, "done", 7, 1, frames, is_compacted=False)
    assert {broken.promise for broken in judge({ID: large}, [])} == {"ended jobs are compacted"}


def test_a_cancel_that_was_not_final_is_seen() -> None:
    assert verdict(cancels=[{"status": "running"}]) == {"a cancel is final at once"}
    assert verdict(cancels=[{"status": "cancelled"}]) == {"a cancel is final"}


def test_a_lost_job_and_a_doubled_one_are_seen() -> None:
    frames = log(GOOD)
    twice = {id: Job(id, "done", 7, 1, frames) for id in ("a", "b")}
    tale = Tale(Errand(7, 0.0, "story", "chat", {}, Answer()), "gone")

    assert {broken.promise for broken in judge(twice, [tale])} == {
        "no job is lost",
        "asked again is not done twice",
    }


def test_only_a_job_that_redis_refused_before_it_began_may_be_asked_for_again() -> None:
    """Its enqueue was answered 503, and its key released; nobody may have been told of the job."""
    away = Failed(code="relay_unavailable", message="")
    done = Job("b", "done", 7, 1, log(GOOD))
    tale = Tale(Errand(7, 0.0, "story", "chat", {}, Answer(content="one two")), "b")

    def found(*events: tuple[str, Event], told: str = "b") -> set[str]:
        refused = Job(ID, "failed", 7, 0, log([*events]))
        both = {ID: refused, "b": done}
        return {broken.promise for broken in judge(both, [replace(tale, job=told)])}

    assert found(BEGUN[0], ("2-0", away)) == set()
    assert found(*BEGUN, ("2-0", away)) == {"asked again is not done twice"}
    other = Failed(code="server_fault", message="")
    assert found(BEGUN[0], ("2-0", other)) == {"asked again is not done twice"}
    assert found(BEGUN[0], ("2-0", away), told=ID) == {"a job ends as it must"}


USED = {("chat", "m"): UsageCounts(requests=1, prompt_tokens=3, completion_tokens=4, backend_ms=9)}


def test_a_ledger_that_equals_the_logs_is_fine() -> None:
    told = {("chat", "m"): USED["chat", "m"]._replace(backend_ms=12)}

    assert list(judge_ledger(told, USED)) == []


@pytest.mark.parametrize(
    "ledger",
    [
        {},
        {**USED, ("chat", "n"): UsageCounts(requests=1)},
        {("chat", "m"): UsageCounts(requests=2, prompt_tokens=6, completion_tokens=8)},
        {("chat", "m"): UsageCounts(requests=1, prompt_tokens=3, completion_tokens=3)},
    ],
    ids=["lost", "invented", "twice", "cut"],
)
def test_a_wrong_ledger_is_found(ledger: dict[tuple[str, ...], UsageCounts]) -> None:
    (broken,) = judge_ledger(ledger, USED)

    assert broken.promise == "the ledger equals what was streamed"


def at(second: float, *events: tuple[str, Event]) -> list[Frame]:
    return [Frame.of(EventId.parse(id), second, event) for id, event in events]


def test_a_scheduled_job_or_a_child_that_starts_too_early_is_seen() -> None:
    job = Job(ID, "done", 7, 1, [*at(5.0, *BEGUN), *at(6.0, GOOD[-1])])
    parent = Job("p", "done", 1, 1, [*at(1.0, *BEGUN), *at(5.5, GOOD[-1])])
    story = Errand(7, 0.0, "story", "chat", {}, Answer(content="one two"))

    def found(**waits: object) -> set[str]:
        tale = Tale(story, ID, **waits)  # type: ignore[arg-type]
        return {broken.promise for broken in judge({ID: job, "p": parent}, [tale])}

    assert found(not_before=5.0) == set()
    assert found(not_before=5.2) == {"no job starts before its time"}
    assert found(parent="p") == {"a child starts after its parent's end"}


def test_a_child_that_ran_although_its_parent_failed_is_seen() -> None:
    failed = Failed(code="server_fault", message="")
    jobs = {ID: Job(ID, "done", 7, 1, at(9.0, *GOOD))}
    jobs["p"] = Job("p", "failed", 1, 1, at(1.0, *BEGUN, ("1-4", failed)))
    story = Errand(7, 0.0, "story", "chat", {}, Answer(content="one two"))

    for after_any, promises in ((True, set()), (False, {"a job ends as it must"})):
        tale = Tale(replace(story, after_any=after_any), ID, parent="p")
        found = {broken.promise for broken in judge(jobs, [tale])}
        assert found - {"nothing is lost or doubled in an answer"} == promises


def test_a_job_that_starts_while_its_queue_is_paused_is_seen() -> None:
    jobs = [Job(ID, "done", 7, 1, at(100.0, *GOOD))]

    assert list(judge_pauses(jobs, [("box.chat", 95.0, 110.0), ("gpu.chat", 80.0, 110.0)])) == []
    (broken,) = judge_pauses(jobs, [("box.chat", 80.0, 110.0)])
    assert broken.promise == "no job of a paused queue starts"


def test_some_errands_of_a_soak_wait_for_a_time_and_some_for_others() -> None:
    asked = errands(random.Random(1), 120, 2.0, with_real=False)

    assert {errand.number for errand in asked if errand.later_s is not None}
    assert {errand.after_any for errand in asked if errand.parent is not None} == {True, False}
    assert all(errand.parent is None or errand.parent < errand.number for errand in asked)


def told(*subjects: str, id_of: str = "evt_") -> list[Received]:
    bodies = [b'{"type": "job.done", "data": {"id": "%s"}}' % each.encode() for each in subjects]
    return [Received(f"{id_of}{e}", "/", {}, b) for e, b in zip(subjects, bodies, strict=True)]


@pytest.mark.parametrize(
    ("received", "promises"),
    [
        (told("a", "b", "b"), []),
        (told("a"), ["every end is told, with one id"]),
        (told("b", "a"), ["ends are told in their order"]),
        ([*told("a", "b"), *told("b", id_of="other_")], ["every end is told, with one id"]),
        (told("a", "b", "c"), ["only ends are told"]),
    ],
)
def test_a_receiver_that_was_not_told_all_in_order_is_seen(
    received: list[Received], promises: list[str]
) -> None:
    broken = judge_told({"a": 1.0, "b": 2.0}, received)

    assert [each.promise for each in broken] == promises
