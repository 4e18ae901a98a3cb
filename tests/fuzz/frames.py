"""Frames that a WebSocket client may send, right and wrong (RFC 6455), written by hand.

A library sends none that are wrong. Each is made of a random generator alone.
"""

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

TEXT, CLOSE = 1, 8
_BINARY, _PING, _PONG = 2, 9, 10
_LARGEST: Final = 64 * 1024
"""Bytes of a message that a shim takes."""


class Sent(NamedTuple):
    """Bytes of a client, and whether it may send them and then read on."""

    data: bytes
    is_legal: bool = True


def frame(
    random: Random, opcode: int, data: bytes, *, first: int = 0x80, length: int | None = None
) -> bytes:
    """A masked frame; `length` is what it claims to hold."""
    size = len(data) if length is None else length
    if size < 126:
        head = struct.pack("!BB", first | opcode, 0x80 | size)
    elif size < 2**16:
        head = struct.pack("!BBH", first | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first | opcode, 0x80 | 127, size)
    mask = random.randbytes(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    return head + mask + masked


def _message(random: Random) -> Sent:
    """What another protocol would say here, or JSON of some type."""
    words: tuple[object, ...] = (
        {"type": "subscribe", "id": "0" * 32}, {"type": "cancel"}, {"after": 1}, [], [[[]]], 1,
        None, "1-1", True, {"type": {"type": []}}, {"key": "flk_" + "0" * 40}, "", 1e308,
    )  # fmt: skip
    return Sent(frame(random, TEXT, json.dumps(random.choice(words)).encode()))


def _binary(random: Random) -> Sent:
    return Sent(frame(random, _BINARY, random.randbytes(random.choice((0, 1, 125, 126, 3000)))))


def _large(random: Random) -> Sent:
    return Sent(frame(random, random.choice((TEXT, _BINARY)), b"x" * (_LARGEST - 1)))


def _too_large(random: Random) -> Sent:
    return Sent(frame(random, _BINARY, b"x" * (_LARGEST + 1)), is_legal=False)


def _huge(random: Random) -> Sent:
    """It claims to hold more than any machine does."""
    size = random.choice((2**31, 2**62, 2**63, 2**64 - 1))
    return Sent(frame(random, _BINARY, b"x" * 100, length=size), is_legal=False)


def _no_utf8(random: Random) -> Sent:
    data = random.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"ok \xf0\x9f"))
    return Sent(frame(random, TEXT, data), is_legal=False)


def _in_pieces(random: Random) -> Sent:
    """A message in three frames, inside of a character and with a ping in between."""
    first, second = frame(random, TEXT, b"\xf0\x9f", first=0), frame(random, 0, b"\xa6", first=0)
    return Sent(first + frame(random, _PING, b"?") + second + frame(random, 0, b"\x9c"))


def _out_of_order(random: Random) -> Sent:
    """The end of a message that has not begun, or a message within another one."""
    begun = frame(random, TEXT, b"a", first=0) + frame(random, TEXT, b"b")
    return Sent(random.choice((frame(random, 0, b"rest"), begun)), is_legal=False)


def _ping(random: Random) -> Sent:
    data = random.randbytes(random.randrange(126))
    return Sent(frame(random, random.choice((_PING, _PONG)), data) * random.choice((1, 15)))


def _bad_control(random: Random) -> Sent:
    """A control frame in pieces, or one that is too long."""
    pieces = frame(random, _PING, b"x", first=0)
    return Sent(random.choice((pieces, frame(random, _PING, b"x" * 126))), is_legal=False)


def _unknown(random: Random) -> Sent:
    """A reserved bit or opcode."""
    odd = frame(random, random.choice((3, 7, 11, 15)), b"x")
    reserved = frame(random, TEXT, b"x", first=0x80 | random.choice((0x40, 0x20, 0x10)))
    return Sent(random.choice((odd, reserved)), is_legal=False)


def _unmasked(_random: Random) -> Sent:
    return Sent(b"\x81\x02hi", is_legal=False)


def _noise(random: Random) -> Sent:
    return Sent(random.randbytes(random.randrange(1, 300)), is_legal=False)


def _close(random: Random) -> Sent:
    """A close: with a code that may be sent, with one that may not, or with a broken reason."""
    code = random.choice((1000, 1001, 1003, 1011, 3000, 4999, 0, 999, 1005, 1006, 1015, 5000))
    data = struct.pack("!H", code) + random.choice((b"", b"bye", b"\xff", b"x" * 123))
    cut = random.choice((0, 1, len(data)))
    return Sent(frame(random, CLOSE, data[:cut]), is_legal=False)


_SORTS: Final[tuple[Callable[[Random], Sent], ...]] = (
    _message, _message, _binary, _large, _too_large, _huge, _no_utf8, _in_pieces, _out_of_order,
    _ping, _bad_control, _unknown, _unmasked, _noise, _close,
)  # fmt: skip
_LEGAL: Final = (_message, _binary, _large, _in_pieces, _ping)


def conversation(random: Random) -> list[Sent]:
    """What a client sends, in this order; half of them send nothing wrong."""
    sorts = _LEGAL if random.random() < 0.5 else _SORTS
    return [random.choice(sorts)(random) for _ in range(random.randrange(6))]
