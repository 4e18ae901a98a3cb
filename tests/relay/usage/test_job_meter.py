"""What a job has used, from its events: each rule of ADR 52, by worker and by log alike.

Subjects: relay/usage/job_meter.py, relay/usage/ended_job.py.
"""

from collections.abc import Sequence

import pytest

from contract.events import (
    Cancelled,
    Delta,
    Done,
    Event,
    EventId,
    Failed,
    Frame,
    Image,
    Queued,
    Reset,
    Resumed,
    Started,
    Usage,
    Vectors,
)
from contract.usage import ModelPrice, UsageCounts, price_of
from contract.wire import encode
from relay.usage.ended_job import EndedJobUsage
from relay.usage.job_meter import JobMeter

ESTIMATE = 100
"""Of every prompt here."""
ONE, LONG = Delta(content="word "), Delta(content="x" * 400)
ROW = Vectors(index=0, count=1, dimension=1, data="AAAA")
BEGUN = Started(attempt=1, worker="w", backend="b")
AGAIN = [Queued(queue="q"), Started(attempt=2, worker="w", backend="b")]
SEVEN = Usage(prompt_tokens=7, completion_tokens=3)


def by_log(events: Sequence[Event]) -> UsageCounts:
    meter = JobMeter()
    for number, event in enumerate(events):
        meter.add_frame(Frame.of(EventId(1, number), 1000.0 + number, event))
    return meter.counts(lambda: ESTIMATE)


@pytest.mark.parametrize(
    ("events", "prompt", "completion", "estimated"),
    [
        ([BEGUN, ONE, ONE, Done(usage=SEVEN)], 7, 3, 0),
        ([BEGUN, ONE, ONE, Done()], ESTIMATE, 2, 1),
        ([BEGUN, ONE, ONE, Done(usage=Usage())], ESTIMATE, 2, 1),
        ([BEGUN, LONG, Cancelled(by="caller")], ESTIMATE, 100, 1),
        ([BEGUN, ONE, Delta(usage=SEVEN), Cancelled(by="caller")], 7, 3, 0),
        ([BEGUN, Delta(thinking="hm"), Delta(refusal="no"), Failed(code="c", message="m")],
         ESTIMATE, 2, 1),
        ([BEGUN, Failed(code="c", message="m")], 0, 0, 0),
        ([Queued(queue="q"), Cancelled(by="caller")], 0, 0, 0),
        # Every attempt that a backend answered, at the prompt that one of them reports.
        ([BEGUN, ONE, ONE, *AGAIN, Reset(attempt=2, reason=""), ONE, Done(usage=SEVEN)], 14, 5, 1),
        ([BEGUN, *AGAIN, ONE, Done(usage=SEVEN)], 7, 3, 0),
        # The second reads what the first has written; its usage is of the whole answer.
        ([BEGUN, ONE, ONE, *AGAIN, Resumed(attempt=2, reason=""), ONE, Done(usage=SEVEN)],
         7 + 7 + 2, 3, 1),
        # An attempt that died before its backend answered changes nothing.
        ([BEGUN, ONE, ONE, *AGAIN, *AGAIN, Resumed(attempt=3, reason=""), ONE, Done(usage=SEVEN)],
         7 + 7 + 2, 3, 1),
        # The first had all tokens that were allowed: nothing was sent again.
        ([BEGUN, ONE, ONE, *AGAIN, Resumed(attempt=2, reason=""),
          Done(usage=Usage(completion_tokens=2))], ESTIMATE, 2, 1),
        ([BEGUN, ROW, Done(usage=Usage(prompt_tokens=9))], 9, 0, 0),
        # Vectors of texts that were embedded before cost nothing.
        ([BEGUN, ROW, Done(usage=Usage())], 0, 0, 0),
        ([BEGUN, ROW, Cancelled(by="caller")], ESTIMATE, 0, 1),
    ],
)  # fmt: skip
def test_tokens_are_those_that_backends_read_and_wrote(
    events: list[Event], prompt: int, completion: int, estimated: int
) -> None:
    counts = by_log(events)

    told = counts.prompt_tokens, counts.completion_tokens, counts.estimated
    assert told == (prompt, completion, estimated)


def test_images_count_and_previews_do_not() -> None:
    picture = Image(index=0, data="AAAA")
    preview = picture.model_copy(update={"partial": True})

    meter = JobMeter()
    meter.begin(0.0)
    for event in (preview, preview, picture, Done()):
        meter.add(event)
    assert meter.counts(lambda: 0) == UsageCounts(images=1)


def test_time_is_from_the_start_to_the_last_answer_of_each_attempt() -> None:
    """A lease that expires half a minute later is no time of a backend."""
    meter = JobMeter()
    for at, event in (
        (10.0, BEGUN), (12.5, ONE), (40.0, AGAIN[0]), (50.0, AGAIN[1]), (51.0, ONE),
        (99.0, Failed(code="worker_lost", message="m")),
    ):  # fmt: skip
        meter.add_frame(Frame.of(EventId(1, 1), at, event))

    assert meter.counts(lambda: 0).backend_ms == 3500


@pytest.mark.parametrize(
    ("backend", "model", "price"),
    [
        ("cloud", "gpt-4o", 1.0), ("other", "gpt-4o", 2.0), ("cloud", "gpt-4o-mini", 3.0),
        ("local", "qwen3", 4.0), ("cloud", "qwen3", None),
    ],
)  # fmt: skip
def test_the_exact_name_has_the_price_before_a_pattern(
    backend: str, model: str, price: float | None
) -> None:
    named = {"gpt-4*": 3.0, "cloud/gpt-4o": 1.0, "gpt-4o": 2.0, "local/*": 4.0}
    prices = {name: ModelPrice(input=value) for name, value in named.items()}
    found = price_of(prices, backend, model)

    assert (found and found.input) == price


def test_an_entry_of_a_newer_version_counts_what_is_known() -> None:
    entry = EndedJobUsage(
        tenant="a", backend="b", kind="chat", status="done",
        counts=(0, 0, 0, 0, 7, 3, 0, 0, 0, 5, 0, 99, 99),
        price=encode(ModelPrice(input=1_000_000)).decode(),
    )  # fmt: skip
    settled = entry.settled(None)

    assert (settled.requests, settled.prompt_tokens, settled.completion_tokens) == (1, 7, 3)
    assert settled.cost_nano == 7_000_000_000
