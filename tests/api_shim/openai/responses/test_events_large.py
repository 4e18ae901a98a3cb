"""The last events of a large response have its whole text four times: they are made one by one."""

import pytest
from support.responses import QUEUED, STARTED, about, frames, words

from api_shim.openai.responses.events import ResponseBuilder, ResponseEvents
from api_shim.openai.responses.store import _without_texts
from contract.events import Delta, Done, Frame, Reset

LONG = "x" * 300_000
LOGS: dict[str, list[Frame]] = {
    "text": frames(QUEUED, STARTED, *words(LONG, "end"), Done()),
    "thoughts": frames(QUEUED, STARTED, Delta(thinking=LONG), *words("a", "b"), Done()),
    "refusal": frames(QUEUED, STARTED, Delta(refusal=LONG), Done()),
    "restarted": frames(
        QUEUED, STARTED, *words(LONG, "old"), Reset(attempt=2, reason="r"),
        *words(LONG, "new"), Done(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("log", LOGS.values(), ids=list(LOGS))
def test_pieces_are_the_same_events(log: list[Frame]) -> None:
    whole, apart = ResponseEvents(about()), ResponseEvents(about())
    expected = whole.render(log)
    pieces = list(apart.pieces(log))

    assert b"".join(pieces) == expected
    assert whole.is_large([])
    assert apart.is_large([])
    assert ResponseEvents(about()).is_large(log)


def test_a_piece_has_the_text_once() -> None:
    pieces = list(ResponseEvents(about()).pieces(LOGS["text"]))
    large = [piece for piece in pieces if LONG.encode() in piece]

    assert len(large) == 5  # its delta, and four events of the end
    assert all(piece.count(LONG.encode()) == 1 for piece in large)


def test_a_piece_of_an_end_is_small() -> None:
    text = "x\u2028" * 3 * 2**20
    pieces = list(ResponseEvents(about()).pieces(frames(QUEUED, STARTED, *words(text), Done())))
    ends = [len(piece) for piece in pieces if b"output_text.delta" not in piece]

    assert sum(ends) > 4 * len(text)
    assert max(ends) < 16 * 2**20


def test_a_small_response_is_rendered_whole() -> None:
    events = ResponseEvents(about())
    log = frames(QUEUED, STARTED, *words("a", "b"), Done())

    assert (len(list(events.pieces(log))), events.is_large([])) == (1, False)


def test_the_events_of_an_end_share_its_text() -> None:
    builder = ResponseBuilder(about())
    events = [event for frame in LOGS["text"] for _, event in builder.add(frame)]
    texts = [event["text"] for event in events if event["type"] == "response.output_text.done"]
    parts = [event["part"] for event in events if event["type"] == "response.content_part.done"]

    assert texts[0] is parts[0]["text"]
    assert texts[0] is builder.response["output"][0]["content"][0]["text"]


@pytest.mark.parametrize("log", LOGS.values(), ids=list(LOGS))
def test_events_are_counted_without_their_texts(log: list[Frame]) -> None:
    whole, counted = ResponseBuilder(about()), ResponseBuilder(about())
    for frame in log:
        light = _without_texts(frame)
        numbers = [number for number, _ in whole.add(frame)]

        assert [number for number, _ in counted.add(light)] == numbers
        assert len(light.body) < 2048
    assert (counted.first, counted.next) == (whole.first, whole.next)
