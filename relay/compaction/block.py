"""The form of a compacted log: frames and fields in compressed blocks, kept byte for byte.

An entry of a log has one of these fields:

- `f`: frames as they were appended (`contract.events`).
- `b`: a block of frames; the entry has the id of the last of them, as every entry has.
- `r`: fields that were moved from the job's record. This entry has the id `RECORD_ID`, before all
  events.
- `v`: the number of a later form, with whatever fields that has; this version refuses such a log.

Anything else is damage, of another program: it is passed over, and the frames around it are read.

A block is deflated (RFC 1951, with a preset dictionary): a line of JSON, then texts without any
separator. Of a fragment of text only the text is stored, the length of its JSON, and the
milliseconds since the frame before: ids are counted, and the JSON around the text is stored once.
Blocks hold frames themselves, not their joined text, so that every cursor and every reader finds
what it found before: OpenAI's `starting_after` counts events.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from contract.errors import NewerVersion
from contract.events import BEGINNING, EventId, Frame
from contract.json_lines import json_line

RECORD_ID: Final = "0-1"
"""The id of the entry with the fields of the record: less than any event's."""
MOST_FRAMES: Final = 256
"""In one block: a reader unpacks it as a whole, which takes a third of a millisecond."""
MOST_BYTES: Final = 64 * 1024
"""Of the frames in one block."""
LARGE_BYTES: Final = 8 * 1024
"""A frame from this size on (vectors, an image) is left as it is."""
_LEVEL: Final = 6
_RAW: Final = -15
"""No header and no checksum: Redis and its files have their own."""
_HEAD: Final = re.compile(
    rb'\{"id":"(0|[1-9]\d{0,17})-(0|[1-9]\d{0,17})","at":(0|[1-9]\d{0,14})\.(\d{3}),'
    # The beginning of a fragment of text.
    rb'("type":"delta",(?:"(?:content|thinking|refusal)":"'
    rb'|"tool_calls":\[\{"index":\d{1,9},"arguments":"))?'
)
_END: Final = b'"}'
_CALL_END: Final = b'"}]}'
_DICTIONARY: Final = (
    b'{"kind":"embed","model":"","input":["","dimensions":,"encoding_format":"float"'
    b'"type":"image_url","image_url":{"url":"data:image/png;base64,'
    b'"role":"system","content":"You are a helpful assistant."role":"assistant","content":"'
    b'"seed":"temperature":0."max_tokens":,"top_p":,"parameters":{"type":"object","properties":{'
    b'"type":"function","function":{"name":"","description":"","required":["json_schema"'
    b'{"kind":"chat","priority":"standard","max_attempts":3,"on_missing":"fail","on_disconnect":'
    b'"continue""cancel","metadata":{},"model":"","messages":[{"role":"user","content":"",'
    b'"tool_calls":[]}],"tools":[],"tool_choice":"auto","response_format":{"type":"text"},'
    b'"stop":[],"logprobs":false,"top_logprobs":0,"think":"auto"}'
    b'"type":"vectors","index":0,"count":1,"dimension":,"data":"'
    b'"type":"resumed","attempt":2,"reason":"the attempt before did not finish"'
    b'"type":"reset","attempt":2,"reason":"the attempt before did not finish, and '
    b'"type":"queued","queue":".chat","position":1,"eta_s":null,"reason":"its worker fell silent"'
    b'"type":"failed","code":"","message":"","retryable":false,"dead":false}'
    b'"type":"cancelled","by":"caller","reason":""}'
    b'"type":"delta","thinking":""type":"phase","phase":"loading""prefill","progress":null}'
    b'"finish_reason":"length""tool_calls"'
    b'"type":"done","finish_reason":"stop","usage":{"prompt_tokens":,"completion_tokens":,'
    b'"cached_tokens":0,"reasoning_tokens":0,"partial":false},"timings":{"queued_ms":,'
    b'"load_ms":null,"first_token_ms":,"total_ms":},"ignored":[]}'
    b'"type":"started","attempt":1,"worker":"","backend":"","endpoint":"http://127.0.0.1:",'
    b'"endpoint":null,"model":"","nonce":""}'
    b'"type":"queued","queue":".chat","position":1,"eta_s":null,"reason":"next in line"}'
    b'{"first":[1,0],"jumps":[],"at_ms":[,0,0,0,1,1,20,20],"shapes":[["queued","",""],["started",'
    b'"",""],["done","",""],["delta","\\"type\\":\\"delta\\",\\"content\\":\\"","\\"}"]],"shape":['
    b'0,1,2,3,3,3,3,3,3],"length":[3,4,5,6,4,5]}'
)
"""Part of the format: blocks in Redis cannot be read with another one."""


class Entry(NamedTuple):
    """An entry of a log: its id in the stream, its only field, and the value."""

    id: str
    field: bytes
    value: bytes


_Shape = tuple[str, bytes, bytes]
"""The type of a frame, and the JSON before and after a text; most frames of a job have the same."""
_Part = tuple[EventId, int, _Shape, bytes]
"""A frame taken apart: id, time (unix milliseconds), shape, text."""


def compacted(frames: Sequence[Frame]) -> Iterator[Entry]:
    """The entries of a compacted log with these frames, in order, a block at a time.

    The last frame is alone in its entry, because it is often read alone: it tells how a job ended.
    """
    parts: list[_Part] = []
    size_bytes = 0
    for at, frame in enumerate(frames, 1):
        part = _part(frame)
        is_full = len(parts) == MOST_FRAMES or size_bytes + len(frame.body) > MOST_BYTES
        if parts and (part is None or is_full or at == len(frames)):
            yield _block(parts)
            parts, size_bytes = [], 0
        if part is None:
            yield Entry(str(frame.id), b"f", frame.to_wire())
        else:
            parts.append(part)
            size_bytes += len(frame.body)
    if parts:
        yield _block(parts)


def frames_in(entry: Mapping[bytes, bytes]) -> list[Frame]:
    """The frames in the fields of an entry; raises NewerVersion, ValueError if it is damaged."""
    frames, damage = sound_frames(entry, BEGINNING, None)
    if damage:
        raise ValueError(damage)
    return frames


def sound_frames(
    entry: Mapping[bytes, bytes], after: EventId, last: EventId | None
) -> tuple[list[Frame], str]:
    """The frames in the fields of an entry whose ids rise from `after` up to its own, `last`.

    With them what is wrong with the entry; empty: nothing. Raises NewerVersion.
    """
    if b"r" in entry:
        return [], ""
    if entry.get(b"v", b"").isdigit():
        raise _newer()
    found, damage = _frames_of_form(entry)
    frames: list[Frame] = []
    for frame in found:
        id = frame.id or BEGINNING
        is_here = last is None or (id <= last and (b"b" in entry or id.attempt == last.attempt))
        if id > after and is_here and frame.is_sound:
            frames.append(frame)
            after = id
        else:
            damage = damage or "it holds what is no event of the log"
    return frames, damage


def _frames_of_form(entry: Mapping[bytes, bytes]) -> tuple[list[Frame], str]:
    """The frames as they stand there, sound or not, and what is wrong with the entry."""
    if (block := entry.get(b"b")) is not None:
        try:
            header, texts = _inflated(block)
        except (ValueError, TypeError, zlib.error):
            return [], "its block cannot be unpacked"
        try:
            found, is_whole = _frames(header, texts)
        except (LookupError, ValueError, TypeError, AttributeError, OverflowError):
            raise _newer() from None
        return found, "" if is_whole else "its block is cut short"
    frames, damage = [], ""
    for line in entry.get(b"f", b"").split(b"\n"):
        try:
            frames.append(Frame.from_wire(line))
        except ValueError:
            damage = "it holds what is no event"
    return frames, damage


def _newer() -> NewerVersion:
    return NewerVersion(
        "the log of this job was compacted by a newer version of the fleet: ask a process of that "
        "version"
    )


def record_entry(fields: Mapping[str, bytes]) -> Entry:
    """The entry with fields that leave the record."""
    lengths = {name: len(value) for name, value in fields.items()}
    return Entry(RECORD_ID, b"r", _deflated(lengths, fields.values()))


def record_fields(entry: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The fields that have left the record; raises ValueError if the entry is damaged."""
    try:
        lengths, texts = _inflated(entry[b"r"])
        fields = dict(zip(map(str.encode, lengths), _cut(texts, lengths.values()), strict=True))
        is_whole = sum(lengths.values()) == len(texts)
    except (LookupError, TypeError, AttributeError, zlib.error) as error:
        raise ValueError("the fields of a record that are in a log are damaged") from error
    if not is_whole:
        raise ValueError("the fields of a record that are in a log are cut short")
    return fields


def _part(frame: Frame) -> _Part | None:
    """A frame taken apart; None if it is large, or not written as this version writes it."""
    id, body = frame.id, frame.body
    head = _HEAD.match(body) if id is not None and len(body) < LARGE_BYTES else None
    if id is None or head is None:
        return None
    attempt, seq, seconds, ms, before = head.groups(b"")
    if id != (int(attempt), int(seq)):
        return None
    start, after = head.end(), b""
    if before:
        after = _CALL_END if b"[" in before else _END
        if not body.endswith(after, start):
            start, before, after = start - len(before), b"", b""
    text = body[start : len(body) - len(after)]
    return id, int(seconds + ms), (frame.type, before, after), text


def _block(parts: Sequence[_Part]) -> Entry:
    ids, times, shapes, texts = zip(*parts, strict=True)
    numbers = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
    header = {
        "first": ids[0],
        "jumps": [
            (at, *id)
            for at, (before, id) in enumerate(pairwise(ids), 1)
            if id != (before[0], before[1] + 1)
        ],
        "at_ms": [times[0], *(now - before for before, now in pairwise(times))],
        "shapes": list(numbers),
        "shape": [numbers[shape] for shape in shapes],
        "length": [len(text) for text in texts],
    }
    return Entry(str(ids[-1]), b"b", _deflated(header, texts))


def _frames(header: Mapping[str, Any], texts: bytes) -> tuple[list[Frame], bool]:
    """The frames of a block up to the first whose text is not whole, and whether that is all."""
    shapes = [(type, prefix.encode(), suffix.encode()) for type, prefix, suffix in header["shapes"]]
    jumps = {at: EventId(attempt, seq) for at, attempt, seq in header["jumps"]}
    frames: list[Frame] = []
    id, now_ms = EventId(*header["first"]), 0
    lengths = header["length"]
    columns = zip(header["at_ms"], header["shape"], lengths, _cut(texts, lengths), strict=True)
    for at, (step_ms, shape, length, text) in enumerate(columns):
        if len(text) != length:
            return frames, False
        id, now_ms = jumps.get(at, id), now_ms + step_ms
        type, prefix, suffix = shapes[shape]
        head = b'{"id":"%d-%d","at":%d.%03d,' % (*id, *divmod(now_ms, 1000))
        frames.append(Frame(id, type, b"".join((head, prefix, text, suffix))))
        id = EventId(id[0], id[1] + 1)
    return frames, sum(lengths) == len(texts)


def _cut(texts: bytes, lengths: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for length in lengths:
        yield texts[start : start + length]
        start += length


def _deflated(header: Any, texts: Iterable[bytes]) -> bytes:
    deflate = zlib.compressobj(_LEVEL, wbits=_RAW, zdict=_DICTIONARY)
    return deflate.compress(b"\n".join((json_line(header), b"".join(texts)))) + deflate.flush()


def _inflated(block: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and texts, as far as these are there; raises ValueError, TypeError, zlib.error."""
    inflate = zlib.decompressobj(_RAW, zdict=_DICTIONARY)
    text, _, texts = inflate.decompress(block).partition(b"\n")
    header = from_json(text)
    if not isinstance(header, dict):
        raise TypeError("a block begins with an object")
    return header, texts
