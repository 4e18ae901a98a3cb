"""A job's log as a response: which events it has, in the words that clients know."""

from typing import Any

import pytest
from openai.types.responses import Response
from support.responses import JOB, QUEUED, STARTED, about, call, frames, parsed, told, words

from api_shim.following.job_refusals import refusal_of
from api_shim.http.problems import problem_of
from api_shim.openai.responses.events import ResponseEvents
from contract.events import (
    Cancelled,
    Delta,
    Done,
    EventId,
    Failed,
    Frame,
    LogProb,
    Reset,
    Resumed,
    Usage,
)


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence_number"] for event in events]


def test_text_is_sent_in_typed_and_numbered_events() -> None:
    log = frames(QUEUED, STARTED, *words("a", "b"), Done(usage=Usage(prompt_tokens=3)))
    events = told(log)

    assert types(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert numbers(events) == list(range(10))
    last = events[-1]["response"]
    assert Response.model_validate(last).output_text == "ab"
    assert (last["status"], last["completed_at"]) == ("completed", 1)
    assert last["usage"]["total_tokens"] == 3
    assert {event["response"]["id"] for event in events if "response" in event} == {f"resp_{JOB}"}


def test_a_background_response_is_reported_as_queued() -> None:
    events = told(frames(QUEUED, STARTED), background=True)

    assert types(events) == ["created", "queued", "in_progress"]
    assert [e["response"]["status"] for e in events] == ["queued", "queued", "in_progress"]


def test_thoughts_words_and_calls_are_items_of_their_own() -> None:
    log = frames(
        QUEUED, STARTED, Delta(thinking="hm"), *words("so"), call(0, id="c9", name="f"),
        call(1, id="c8", name="g", arguments="{}"), call(0, arguments='{"a"'),
        call(0, arguments=":1}"), Done(finish_reason="tool_calls"),
    )  # fmt: skip
    events = told(log)
    output = events[-1]["response"]["output"]

    assert [item["type"] for item in output] == [
        "reasoning", "message", "function_call", "function_call",
    ]  # fmt: skip
    assert [item.get("arguments") for item in output] == [None, None, '{"a":1}', "{}"]
    assert [item.get("call_id") for item in output] == [None, None, "c9", "c8"]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in done] == output
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    thought = next(e for e in events if e["type"] == "response.reasoning_text.delta")
    assert (thought["delta"], thought["item_id"]) == ("hm", output[0]["id"])


def test_thoughts_are_summaries_for_who_looks_for_them_there() -> None:
    log = frames(QUEUED, STARTED, Delta(thinking="hm"), *words("so"), Done())
    events = told(log, reasoning={"summary": "auto"})

    assert types(events)[2:8] == [
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
    ]  # fmt: skip
    assert events[-1]["response"]["output"][0]["summary"] == [
        {"type": "summary_text", "text": "hm"}
    ]


def test_a_refusal_is_a_part_of_the_message() -> None:
    log = frames(QUEUED, STARTED, *words("Well,"), Delta(refusal="no"), Done())
    events = told(log)

    assert types(events)[5:10] == [
        "output_text.done", "content_part.done", "content_part.added", "refusal.delta",
        "refusal.done",
    ]  # fmt: skip
    assert events[-1]["response"]["status"] == "completed"
    assert [part["type"] for part in events[-1]["response"]["output"][0]["content"]] == [
        "output_text", "refusal",
    ]  # fmt: skip


def test_likelihoods_stand_beside_their_words() -> None:
    likely = LogProb(token="a", logprob=-0.5, top_logprobs=(LogProb(token="b", logprob=-2),))
    events = told(frames(QUEUED, STARTED, Delta(content="a", logprobs=(likely,)), Done()))
    delta = next(e for e in events if e["type"] == "response.output_text.delta")

    assert delta["logprobs"][0]["bytes"] == [97]
    assert delta["logprobs"][0]["top_logprobs"][0]["token"] == "b"
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == delta["logprobs"]


@pytest.mark.parametrize(
    ("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_is_incomplete(reason: Any, why: str) -> None:
    events = told(
        frames(
            QUEUED, STARTED, *words("a"), Done(finish_reason=reason, usage=Usage(prompt_tokens=1))
        )
    )
    last = events[-1]

    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": why}
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert last["response"]["usage"]["total_tokens"] == 1


@pytest.mark.parametrize(
    ("code", "known"),
    [("server_fault", "server_error"), ("context_exceeded", "context_length_exceeded")],
)
def test_a_failure_is_sent_with_the_output_before_it(code: str, known: str) -> None:
    events = told(frames(QUEUED, STARTED, *words("a"), Failed(code=code, message="oh")))
    last = events[-1]["response"]

    assert types(events)[-2:] == ["output_text.delta", "failed"]
    assert last["error"] == {"code": known, "message": "oh", "param": None, "type": code}
    assert (last["status"], last["output"][0]["status"]) == ("failed", "incomplete")


def test_a_response_cancelled_before_it_began_is_reported_as_cancelled() -> None:
    events = told(frames(QUEUED, Cancelled(by="caller")), background=True)

    assert types(events) == ["created", "queued", "incomplete"]
    assert events[-1]["response"]["status"] == "cancelled"


def test_an_answer_without_a_word_is_an_empty_message() -> None:
    events = told(frames(QUEUED, STARTED, Done()))

    assert Response.model_validate(events[-1]["response"]).output_text == ""
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message"]


def test_an_answer_that_another_worker_continues_looks_the_same() -> None:
    rest = Frame.of(EventId(2, 0), 1.5, QUEUED), Frame.of(EventId(2, 1), 1.5, STARTED)
    resumed = Frame.of(EventId(2, 2), 1.5, Resumed(attempt=2, reason="its worker died"))
    begun, end = frames(QUEUED, STARTED, *words("a")), frames(*words("b"), Done(), attempt=3)

    assert told([*begun, *rest, resumed, *end]) == told([*begun, *end])


def test_text_that_was_sent_ends_the_stream_when_it_is_reset() -> None:
    begun, reset = frames(QUEUED, STARTED, *words("a")), Reset(attempt=2, reason="")
    stream = ResponseEvents(about())
    received = parsed(stream.render(begun))
    good, end = stream.split_frames([Frame.of(EventId(2, 2), 1.5, reset)])
    assert (good, end is not None) == ([], True)
    (last,) = parsed(stream.render_error(problem_of(refusal_of(reset), {})))

    assert last["sequence_number"] == received[-1]["sequence_number"] + 1
    assert last["code"] == last["error"]["code"] == "answer_restarted"
    assert last["message"] == last["error"]["message"]


def test_the_number_of_an_error_that_is_not_in_the_log_is_the_last_event_s() -> None:
    stream = ResponseEvents(about())
    received = parsed(stream.render(frames(QUEUED, STARTED, *words("a"))))
    (last,) = parsed(stream.render_error(problem_of(refusal_of(Cancelled(by="x")), {})))

    assert last["sequence_number"] == received[-1]["sequence_number"]
