"""A compacted log holds every frame byte for byte, and every cursor reads the rest of it."""

import base64
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from contract.errors import NewerVersion
from contract.events import (
    BEGINNING,
    Cancelled,
    Delta,
    Done,
    Event,
    EventId,
    Failed,
    Frame,
    Image,
    LogProb,
    Phase,
    Progress,
    Queued,
    Reset,
    Resumed,
    Started,
    Timings,
    ToolCallDelta,
    Usage,
    Vectors,
)
from relay.compaction.block import (
    LARGE_BYTES,
    MOST_FRAMES,
    Entry,
    _deflated,
    _inflated,
    compacted,
    frames_in,
    record_entry,
    record_fields,
)
from relay.compaction.log_reader import frames_of

STORED = base64.b64decode(
    "I8JjhuaWppamBhaGRgYGQI8BTTYCk4ak+5BiLwEhslcsgaKGhlAv1nLhjHdIJZeaQnb8E5mYyw1RkjPMWjzpNhcp4VqaJxmaGZmZKNWWGyiUGyqUGykAAA=="
)
"""A block as it was written when the format was fixed."""
text = some.text(some.characters(exclude_categories=["Cs"]), max_size=12)
usages = some.builds(Usage, completion_tokens=some.integers(0, 9))
fragments = some.one_of(
    text.map(lambda said: Delta(content=said)),
    text.map(lambda said: Delta(thinking=said)),
    text.map(lambda said: Delta(refusal=said)),
    some.builds(ToolCallDelta, index=some.integers(0, 3), arguments=text).map(
        lambda call: Delta(tool_calls=(call,))
    ),
    some.builds(
        ToolCallDelta, index=some.just(0), id=text, name=text, provider_meta=some.just({"a": "b"})
    ).map(lambda call: Delta(tool_calls=(call, call))),
    some.builds(Delta, content=text, thinking=text),
    some.builds(Delta, content=text, usage=usages),
    text.map(lambda said: Delta(content=said, logprobs=(LogProb(token=said, logprob=-0.5),))),
    text.map(lambda said: Delta(content=said, provider_meta={"signature": said})),
)
others = some.one_of(
    some.builds(Queued, queue=some.just("scripted.chat"), reason=text),
    some.builds(Started, attempt=some.just(1), worker=text, backend=some.just("scripted")),
    some.builds(Phase, phase=some.just("loading")),
    some.builds(Progress, status=text),
    some.builds(Resumed, attempt=some.just(2), reason=text),
    some.builds(Reset, attempt=some.just(2), reason=text),
    some.integers(1, 2 * LARGE_BYTES).map(
        lambda size: Vectors(index=0, count=1, dimension=size, data="A" * size)
    ),
    some.builds(Image, index=some.just(0), data=text, partial=some.booleans()),
)
ends = some.one_of(
    some.builds(Done, usage=usages, timings=some.builds(Timings, total_ms=some.floats(0, 1e6))),
    some.builds(Failed, code=text, message=text),
    some.builds(Cancelled, by=text),
)
times = some.one_of(some.floats(0, 4e9), some.just(1795950812.0069), some.just(0.0))


@some.composite
def logs(draw: some.DrawFn) -> list[Frame]:
    """Logs of several attempts, as the scripts, the publisher and a newer version write them."""
    frames: list[Frame] = []
    id = EventId(1, 0)
    for event in draw(some.lists(some.one_of(fragments, fragments, others), max_size=30)):
        frames.append(Frame.of(id, draw(times), event))
        leap = draw(some.sampled_from([None, None, None, None, "attempt", "gap", "strange"]))
        if leap == "strange":
            id = EventId(id.attempt, id.seq + 1)
            body = draw(
                some.sampled_from([b'{"at":1,"id":"%d-%d"}', b'{"id":"%d-%d","at":1.5,"x":1}'])
            )
            frames.append(Frame(id, "newer", body % id))
        id = EventId(id.attempt + 1, 0) if leap == "attempt" else EventId(id.attempt, id.seq + 1)
        id = EventId(id.attempt, id.seq + 3) if leap == "gap" else id
    return [*frames, Frame.of(id, draw(times), draw(ends))]


def stream(entries: Sequence[Entry], after: EventId) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """What XRANGE returns of these entries after a cursor."""
    return [
        (entry.id.encode(), {entry.field: entry.value})
        for entry in entries
        if EventId.parse(entry.id) > after
    ]


def plain(frames: Sequence[Frame]) -> list[Entry]:
    return [Entry(str(frame.id), b"f", frame.to_wire()) for frame in frames]


def same(one: Sequence[Frame], other: Sequence[Frame]) -> bool:
    return [(f.id, f.type, f.body) for f in one] == [(f.id, f.type, f.body) for f in other]


@given(logs())
def test_every_cursor_reads_from_a_compacted_log_what_it_read_before(log: list[Frame]) -> None:
    entries = list(compacted(log))

    for cursor in [BEGINNING, *(frame.id or BEGINNING for frame in log)]:
        assert same(
            frames_of(stream(plain(log), cursor)), frames_of(stream(entries, cursor), cursor)
        )


@given(logs(), some.integers(0, 40))
def test_a_reader_that_meets_the_compaction_midway_reads_every_event_once(
    log: list[Frame], read: int
) -> None:
    before = log[:read]
    cursor = before[-1].id or BEGINNING if before else BEGINNING

    assert same(log, [*before, *frames_of(stream(list(compacted(log)), cursor), cursor)])


@given(logs())
def test_ids_of_entries_rise_and_the_last_frame_is_alone(log: list[Frame]) -> None:
    entries = list(compacted([*log]))
    ids = [EventId.parse(entry.id) for entry in entries]

    assert ids == sorted(set(ids))
    assert len(frames_of(stream(entries[-1:], BEGINNING))) == 1


def chat_log(chunks: int) -> list[Frame]:
    events: list[Event] = [
        Queued(queue="scripted.chat", position=1, reason="next in line"),
        Started(attempt=1, worker="w1", backend="scripted", model="m", nonce="97b16264"),
        *(Delta(content=f"w{at} ") for at in range(chunks)),
        Done(usage=Usage(prompt_tokens=12, completion_tokens=chunks)),
    ]
    return [
        Frame.of(EventId(1, seq), 1795950812 + seq * 0.0213, event)
        for seq, event in enumerate(events)
    ]


def test_a_block_of_this_version_is_read_by_every_later_one() -> None:
    assert frames_in({b"b": STORED}) == chat_log(3)[:-1]


def test_blocks_are_bounded() -> None:
    entries = list(compacted(chat_log(3 * MOST_FRAMES)))
    sizes = [len(frames_in({entry.field: entry.value})) for entry in entries]

    assert sizes == [MOST_FRAMES] * 3 + [2, 1]


def test_a_chunk_of_text_takes_little_more_than_its_text() -> None:
    small, large = (
        sum(len(entry.value) for entry in compacted(chat_log(chunks))) for chunks in (100, 500)
    )
    words = sum(len(f"w{at} ") for at in range(100, 500))

    assert large - small < words


def test_an_entry_of_a_newer_version_is_refused() -> None:
    with pytest.raises(NewerVersion, match="newer version"):
        frames_in({b"v": b"2", b"c": b"?"})


@given(logs(), some.data())
def test_a_damaged_entry_is_read_or_refused_and_never_an_error(
    log: list[Frame], data: some.DataObject
) -> None:
    entry = data.draw(some.sampled_from(list(compacted(log))))
    at = data.draw(some.integers(0, len(entry.value)))
    cut = data.draw(some.integers(0, 3))
    value = entry.value[:at] + data.draw(some.binary(max_size=3)) + entry.value[at + cut :]
    read: list[Frame] | None = None
    with suppress(NewerVersion, ValueError):
        read = frames_in({entry.field: value})

    assert read is None or all(isinstance(frame, Frame) for frame in read)


@given(some.recursive(some.none() | some.integers() | text, some.lists, max_leaves=4), some.data())
def test_a_block_with_another_header_is_refused(value: object, data: some.DataObject) -> None:
    entry = next(iter(compacted(chat_log(3))))
    header, texts = _inflated(entry.value)
    field = data.draw(some.sampled_from(sorted(header)))
    block = _deflated({**header, field: value}, [texts])
    read: list[Frame] = []
    with suppress(NewerVersion, ValueError):
        read = frames_in({b"b": block})

    assert all(isinstance(frame, Frame) for frame in read)


def test_fields_of_a_record_come_back() -> None:
    fields = {"request": '{"messages":"naïve\n\\u2028"}'.encode(), "metadata": b"{}"}
    entry = record_entry(fields)

    assert record_fields({entry.field: entry.value}) == {
        name.encode(): value for name, value in fields.items()
    }
    assert frames_in({entry.field: entry.value}) == []
