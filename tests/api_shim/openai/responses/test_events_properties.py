"""What must hold of a response's events for any output, however the log is read."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json
from support.responses import QUEUED, STARTED, about, call, frames, parsed, told

from api_shim.batch.row_bodies import ResponseRow
from api_shim.openai.responses.events import ResponseBuilder, ResponseEvents
from contract.events import Cancelled, Delta, Done, Event, Failed, Frame, LogProb, Reset
from contract.json_lines import json_line
from contract.result import fold


def likely(text: str) -> tuple[LogProb, ...]:
    """Those of a text whose tokens are its characters."""
    return tuple(LogProb(token=each, logprob=-1.0) for each in text)


SAID = st.one_of(
    st.builds(Delta, content=st.text(min_size=1, max_size=3)),
    st.builds(Delta, thinking=st.text(min_size=1, max_size=3)),
    st.builds(Delta, refusal=st.text(min_size=1, max_size=3)),
    st.text(min_size=1, max_size=3).map(lambda text: Delta(content=text, logprobs=likely(text))),
    st.builds(Delta, refusal=st.just("no"), logprobs=st.just((LogProb(token="~no", logprob=0.0),))),
    st.builds(Delta, thinking=st.just("hm"), logprobs=st.just((LogProb(token="~hm", logprob=0),))),
    st.builds(call, st.integers(0, 2), id=st.just("c"), name=st.just("f"), arguments=st.text()),
    st.builds(Reset, attempt=st.just(2), reason=st.just("")),
)
ENDS = st.sampled_from(
    [Done(), Done(finish_reason="length"), Failed(code="x", message="m"), Cancelled(by="caller")]
)


def as_sent(value: Any) -> Any:
    return from_json(json_line(value))


def cut(log: list[Frame], places: list[int]) -> list[list[Frame]]:
    edges = sorted({0, len(log), *(place % len(log) for place in places)})
    return [log[start:end] for start, end in pairwise(edges)]


@given(st.lists(SAID, max_size=12), ENDS, st.lists(st.integers(0, 20)), st.integers(0, 60))
def test_numbers_depend_on_the_log_alone(
    said: list[Event], end: Event, places: list[int], after: int
) -> None:
    # LocalAI #10993: a stream is resumed only on the replica that has it.
    log = frames(QUEUED, STARTED, *said, end)
    builder = ResponseBuilder(about())
    every = [as_sent(event) for frame in log for _, event in builder.add(frame)]
    resets = [frame.id for frame in log if frame.type == "reset"]
    last_reset = resets[-1] if resets else None
    holds = [event for event in every if event["sequence_number"] >= builder.first]

    fresh = ResponseEvents(about(), known_reset=last_reset)
    assert parsed(b"".join(fresh.render(page) for page in cut(log, places))) == holds
    assert holds[0]["type"] == "response.created"
    later = ResponseEvents(about(), after=builder.first + after, known_reset=last_reset)
    assert parsed(b"".join(later.render(page) for page in cut(log, places))) == (
        holds[after + 1 :] or holds[-1:]
    )
    assert as_sent(builder.response) == holds[-1]["response"]


@given(st.lists(SAID, max_size=12))
def test_events_keep_the_order_that_clients_rely_on(said: list[Event]) -> None:
    events = told(frames(QUEUED, STARTED, *said, Done()))
    added: set[int] = set()
    closed: set[int] = set()
    for event in events:
        index = event.get("output_index", -1)
        assert index not in closed
        if event["type"] == "response.output_item.added":
            assert index == len(added)
            added.add(index)
        elif event["type"] == "response.output_item.done":
            closed.add(index)
        assert index == -1 or index in added
    assert added == closed == set(range(len(events[-1]["response"]["output"])))


@given(st.lists(SAID, max_size=12), ENDS)
def test_the_whole_answer_of_a_batch_s_row_is_the_same(said: list[Event], end: Event) -> None:
    log = frames(QUEUED, STARTED, *said, end)
    row = ResponseRow(about())
    for frame in log:
        row.add(frame)

    made = row.made(fold(frame.event for frame in log))
    assert as_sent(made) == told(log)[-1]["response"]


@given(st.lists(SAID, max_size=12))
def test_texts_have_the_log_probabilities_of_their_tokens_and_no_others(said: list[Event]) -> None:
    response = told(frames(QUEUED, STARTED, *said, Done()))[-1]["response"]
    parts = [
        (part["text"], "".join(each["token"] for each in part["logprobs"]))
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    ]

    assert all(set(tokens) <= set(text) for text, tokens in parts)
