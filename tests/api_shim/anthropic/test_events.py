"""Deltas become blocks and events of Anthropic's grammar, whatever their order.

Subjects: api_shim/anthropic/events.py, api_shim/anthropic/answer_blocks.py,
api_shim/anthropic/errors.py.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.message_grammar import Told, checked

from api_shim.anthropic.errors import anthropic_envelope, error_body
from api_shim.anthropic.events import MessageBuilder, MessageEvents, MessageFacts
from api_shim.anthropic.signatures import facts_in
from api_shim.following.job_refusals import refusal_of
from api_shim.http.problems import problem_of
from contract.chat import MessageNotes
from contract.errors import BackendBusy, FleetError, NoWorker, QueueFull, QuotaExhausted
from contract.events import Delta, Done, Event, EventId, Failed, Frame, Queued, Reset, Usage

JOB = "0123456789abcdef" * 2
FACTS = MessageFacts(JOB, "m", "standard", MessageNotes())
META: Any = {"google": {"thought_signature": "abc"}}


def frames(*events: Event, attempt: int = 1) -> list[Frame]:
    return [Frame.of(EventId(attempt, seq), 1.0, event) for seq, event in enumerate(events, 1)]


def told(*events: Event, facts: MessageFacts = FACTS) -> Told:
    """What a stream tells of these events; the whole message must say the same."""
    all_frames = frames(*events)
    found = checked(MessageEvents(facts).render(all_frames))
    builder = MessageBuilder(facts)
    for frame in all_frames:
        builder.add(frame)
    content = [{**block, "citations": None} if block["type"] == "text" else block
               for block in found.blocks]  # fmt: skip
    assert builder.message["content"] == content
    return found


def call(index: int, arguments: str, id: str | None = None, **more: Any) -> Delta:
    fragment = {"index": index, "id": id, "name": id and "look", "arguments": arguments, **more}
    return Delta.model_validate({"tool_calls": [fragment]})


def test_thinking_text_and_a_call_are_blocks_in_their_order() -> None:
    found = told(
        Delta(thinking="hm"),
        Delta(content="I "),
        Delta(content="look."),
        call(0, "", "c-a"),
        call(0, '{"at":'),
        call(0, '"box"}'),
        Done(finish_reason="tool_calls", usage=Usage(prompt_tokens=9, completion_tokens=7,
             cached_tokens=4, reasoning_tokens=2)),
    )  # fmt: skip

    assert [block["type"] for block in found.blocks] == ["thinking", "text", "tool_use"]
    assert found.blocks[2]["input"] == {"at": "box"}
    assert found.usage["input_tokens"] == 5
    assert found.usage["cache_read_input_tokens"] == 4
    assert found.usage["output_tokens_details"] == {"thinking_tokens": 2}
    assert found.ids[-1] == "1-7"


@settings(max_examples=60)
@given(st.data())
def test_interleaved_calls_lose_no_arguments(data: st.DataObject) -> None:
    texts = ['{"n":0,"s":"a b"}', '{"n":1}', "{}"]
    rest = {index: [*text] for index, text in enumerate(texts)}
    events: list[Event] = [call(0, "", "c-0"), call(1, "", "c-1"), call(2, "", "c-2")]
    while any(rest.values()):
        index = data.draw(st.sampled_from([each for each, left in rest.items() if left]))
        count = data.draw(st.integers(1, len(rest[index])))
        events.append(call(index, "".join(rest[index][:count])))
        del rest[index][:count]
        if data.draw(st.booleans()):
            events.append(Delta(content="."))
    found = told(*events, Done(finish_reason="tool_calls"))

    inputs = {block["id"]: block["input"] for block in found.blocks if block["type"] == "tool_use"}
    assert inputs == {"c-0": {"n": 0, "s": "a b"}, "c-1": {"n": 1}, "c-2": {}}
    assert found.text == "." * sum(isinstance(e, Delta) and bool(e.content) for e in events)


def test_a_call_without_arguments_is_an_empty_object() -> None:
    found = told(call(0, "", "c-a"), Done(finish_reason="stop"))

    assert found.blocks[0]["input"] == {}
    assert found.ending["stop_reason"] == "tool_use"


def test_wrong_arguments_are_kept_in_a_whole_message() -> None:
    builder = MessageBuilder(FACTS)
    for frame in frames(call(0, "not json", "c-a"), Done(finish_reason="tool_calls")):
        builder.add(frame)

    assert builder.message["content"][0]["input"] == {"INVALID_JSON": "not json"}


@pytest.mark.parametrize(
    ("done", "reason", "stop"),
    [
        (Done(), "end_turn", None),
        (Done(finish_reason="length"), "max_tokens", None),
        (Done(stop_sequence="X"), "stop_sequence", "X"),
        (Done(finish_reason="content_filter"), "refusal", None),
    ],
)
def test_the_reasons_of_an_end(done: Done, reason: str, stop: str | None) -> None:
    found = told(Delta(content="x"), done)

    assert (found.ending["stop_reason"], found.ending["stop_sequence"]) == (reason, stop)


@pytest.mark.parametrize(
    ("text", "done", "reason"),
    [
        ("one END", Done(), "stop_sequence"),
        ("one END of it", Done(), "end_turn"),
        ("one END", Done(finish_reason="length"), "max_tokens"),
        ("one", Done(), "end_turn"),  # a server that removes the sequence and does not name it
    ],
)
def test_a_stop_sequence_that_a_server_leaves_in_the_text_is_the_reason(
    text: str, done: Done, reason: str
) -> None:
    found = told(Delta(content=text), done, facts=FACTS._replace(stops=("STOP", "END")))

    assert found.ending["stop_reason"] == reason
    assert found.ending["stop_sequence"] == ("END" if reason == "stop_sequence" else None)


def test_a_refusal_is_text_and_explained() -> None:
    found = told(Delta(refusal="No."), Done())

    assert (found.text, found.ending["stop_reason"]) == ("No.", "refusal")
    assert found.ending["stop_details"]["explanation"] == "No."


def test_opaque_data_of_a_backend_is_in_signatures_and_sealed_blocks() -> None:
    found = told(
        Delta(thinking="hm", provider_meta={"a": 1}),
        Delta(content="x"),
        call(0, "{}", "c-a", provider_meta=META),
        Delta(provider_meta={"a": 2}),
        Done(finish_reason="tool_calls"),
    )
    thinking, _, before, use, after = found.blocks

    assert facts_in(thinking["signature"]) == {"message": {"a": 1}}
    assert facts_in(before["data"]) == {"calls": {"c-a": META}}
    assert use["id"] == "c-a"
    assert facts_in(after["data"]) == {"message": {"a": 2}}


def test_omitted_thinking_is_in_the_signature_alone() -> None:
    facts = FACTS._replace(notes=MessageNotes(omits_thinking=True))
    found = told(
        Delta(thinking="se"), Delta(thinking="cret"), Delta(content="x"), Done(), facts=facts
    )

    assert found.blocks[0]["thinking"] == ""
    assert facts_in(found.blocks[0]["signature"]) == {"thinking": "secret"}


def test_message_start_comes_once_with_the_first_ping() -> None:
    events = MessageEvents(FACTS)
    queued = Frame.of(None, 1.0, Queued(queue="q", position=3, eta_s=2.5, reason="jobs before it"))
    waiting = events.render([queued]) + events.keep_alive + events.keep_alive
    rest = events.render(frames(Delta(content="x"), Done()))
    found = checked(waiting + rest)

    assert found.pings == 2
    assert '"position":3' in found.comments[0]
    assert found.text == "x"


def test_a_reset_before_any_block_is_not_seen_and_after_one_ends_the_stream() -> None:
    early, late = MessageEvents(FACTS), MessageEvents(FACTS)
    first, second = frames(Delta(content="old")), frames(Reset(attempt=2, reason="r"), attempt=2)
    new = [Frame.of(EventId(2, 2), 1.0, Delta(content="new")), Frame.of(EventId(2, 3), 1.0, Done())]
    page = [*first, *second, *new]

    assert checked(early.render(early.split_frames(page)[0])).text == "new"
    late.render(late.split_frames(first)[0])
    sendable, end = late.split_frames([*second, *new])
    assert (sendable, end) == ([], second[0])


def test_a_cursor_skips_what_was_received() -> None:
    page = frames(Delta(content="a"), Delta(content="b"), Delta(content="c"), Done())
    whole = MessageEvents(FACTS).render(page)
    rest = MessageEvents(FACTS, after=EventId(1, 2)).render(page)

    assert whole.endswith(rest)
    assert checked(rest, resumed=True).ids == ["1-3", "1-4"]


def problem(error: FleetError) -> Any:
    return problem_of(error, {"type": "http", "path": "/v1/messages", "state": {"request_id": "r"}})


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NoWorker("x"), 529, "overloaded_error"),
        (QueueFull("x", retry_after_s=3), 429, "rate_limit_error"),
    ],
)
def test_refusals_have_anthropics_statuses(error: FleetError, status: int, kind: str) -> None:
    answer = anthropic_envelope(problem(error), {})

    assert (answer.status_code, error_body(problem(error))["error"]["type"]) == (status, kind)
    assert int(answer.headers["retry-after"]) >= 2
    assert answer.headers["x-should-retry"] == "true"


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (BackendBusy.code, 529, "overloaded_error"),
        (QuotaExhausted.code, 402, "billing_error"),
        ("context_exceeded", 400, "invalid_request_error"),
        ("model_missing", 404, "not_found_error"),
        ("backend_stalled", 504, "timeout_error"),
        ("server_fault", 502, "api_error"),
    ],
)
def test_ends_of_jobs_have_anthropics_statuses(code: str, status: int, kind: str) -> None:
    refusal = refusal_of(Failed(code=code, message="why"))
    found = problem_of(refusal, {"type": "http", "path": "/v1/messages"})

    assert anthropic_envelope(found, {}).status_code == status
    assert error_body(found)["error"]["type"] == kind
