"""Events: their ids, their frames, and the answer they fold into."""

import json
from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.embeddings import pack, unpack
from contract.events import (
    Cancelled,
    Cursor,
    Delta,
    Done,
    Event,
    EventId,
    Failed,
    Frame,
    Image,
    KnownEvent,
    Progress,
    Queued,
    Reset,
    Resumed,
    Started,
    ToolCallDelta,
    Unknown,
    Usage,
    Vectors,
    wire_line,
)
from contract.result import Fold, fold


def test_ids_order_by_attempt_then_by_sequence() -> None:
    ids = [EventId(2, 0), EventId(1, 10), EventId(1, 9)]

    assert [str(id) for id in sorted(ids)] == ["1-9", "1-10", "2-0"]


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-2-3", "1.5-0", "²-1"])
def test_an_invalid_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="looks like 2-17"):
        EventId.parse(text)


@given(st.text(), st.text())
def test_a_frame_survives_the_wire(content: str, thinking: str) -> None:
    frame = Frame.of(EventId(3, 14), 1.5, Delta(content=content, thinking=thinking))
    arrived = Frame.from_wire(frame.to_wire())

    assert frame == arrived
    assert (EventId(3, 14), "delta", 1.5) == (arrived.id, arrived.type, arrived.at)
    assert Delta(content=content, thinking=thinking) == arrived.event


@given(st.text(), st.floats(0, 2e9))
def test_the_faster_way_to_a_frame_writes_the_same(content: str, at: float) -> None:
    id = EventId(3, 14)
    usage = Usage(prompt_tokens=1)
    for event in (
        Delta(content=content), Delta(content=None), Delta(content=content, usage=usage),
        Delta(content=content).model_copy(update={"thinking": content}), Delta(thinking=content),
        Done(), Queued(queue=content),
    ):  # fmt: skip
        line = wire_line(id, b"%.3f" % at, event)

        assert Frame.of(id, at, event).to_wire() == line


def test_a_frame_is_the_documented_json() -> None:
    frame = Frame.of(EventId(1, 0), 12.25, Queued(queue="ollama.chat", reason="next in line"))

    assert json.loads(frame.body) == {
        "id": "1-0", "at": 12.25, "type": "queued", "queue": "ollama.chat",
        "position": None, "eta_s": None, "reason": "next in line",
    }  # fmt: skip


def test_a_delta_shows_only_what_is_there() -> None:
    body = json.loads(Frame.of(EventId(1, 2), 0, Delta(content="x")).body)

    assert {"id", "at", "type", "content"} == set(body)


def test_a_live_only_frame_has_no_id() -> None:
    frame = Frame.of(None, 1, Queued(queue="q.chat", position=2))

    assert "id" not in json.loads(frame.body)


def test_every_event_is_in_the_union() -> None:
    members = set(get_args(get_args(KnownEvent)[0]))

    assert members | {Unknown} == set(Event.__subclasses__())


def test_events_fold_into_a_result() -> None:
    result = fold(
        [
            Queued(queue="q.chat"),
            Started(attempt=1, worker="w", backend="q", model="m"),
            Delta(thinking="hm"),
            Delta(content="a", tool_calls=(ToolCallDelta(index=0, id="c1", name="f"),)),
            Delta(content="b", tool_calls=(ToolCallDelta(index=0, arguments='{"x":'),)),
            Delta(tool_calls=(ToolCallDelta(index=0, arguments="1}"),)),
            Done(finish_reason="tool_calls"),
        ]
    )

    assert (
        result.content,
        result.thinking,
        result.status,
        result.finish_reason,
    ) == ("ab", "hm", "done", "tool_calls")
    assert (
        result.tool_calls[0].arguments,
        result.tool_calls[0].name,
        result.tool_calls[0].id,
    ) == ('{"x":1}', "f", "c1")


def test_a_reset_discards_the_output() -> None:
    first = [Delta(content="half an ans"), Image(index=0, data="x")]
    result = fold([*first, Reset(attempt=2, reason="r"), Delta(content="whole"), Done()])

    assert (result.content, result.images) == ("whole", ())


def test_a_resumed_answer_continues() -> None:
    result = fold([Delta(content="one "), Resumed(attempt=2, reason="r"), Delta(content="two")])

    assert result.content == "one two"


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (Failed(code="x", message="m"), "failed"),
        (Cancelled(by="caller"), "cancelled"),
        (Done(), "done"),
    ],
)
def test_the_terminal_event_is_the_status(last: Done | Failed | Cancelled, status: str) -> None:
    result = fold([Delta(content="part"), last])

    assert (status, "part") == (result.status, result.content)


def test_vectors_are_joined_in_row_order() -> None:
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    late = Vectors(index=2, count=1, dimension=2, data=pack(rows[2:]))
    early = Vectors(index=0, count=2, dimension=2, data=pack(rows[:2]))
    embeddings = fold([late, early]).embeddings

    assert embeddings is not None
    assert (3, rows) == (embeddings.count, unpack(embeddings.data, 2))


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3)))
def test_packed_vectors_are_unpacked_exactly(rows: list[list[float]]) -> None:
    assert rows == unpack(pack(rows), 3)


@given(st.text() | st.from_regex(r"\d{1,20}-\d{1,20}(\.[0-9a-f]{1,34})?\s?", fullmatch=True))
def test_a_cursor_is_read_as_it_is_written_and_anything_else_refused(text: str) -> None:
    read: Cursor | None = None
    with suppress(ValueError):
        read = Cursor.parse(text)

    assert read is None or Cursor.parse(str(read)) == read
    assert read is None or (text.isascii() and text == text.strip() and max(read.id) < 2**63)


@given(st.builds(Cursor, st.builds(EventId, *[st.integers(0, 10**18 - 1)] * 2), st.none()))
def test_every_cursor_of_ours_is_read(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


def test_progress_is_the_latest() -> None:
    answer = Fold()
    for done in (1, 2):
        answer.add(Progress(status="pulling", completed_bytes=done))

    assert answer.result.progress == Progress(status="pulling", completed_bytes=2)
    assert not answer.has_output
