"""WebSockets of clients that send what they like, with every key, to everybody's jobs.

A fault is a close with 1011, a connection that does not end, an event of another tenant's job, and,
of a client that has sent nothing wrong, an event that is missing or comes twice.
"""

import json
import socket
from dataclasses import dataclass, field
from random import Random
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from contract.events import LAST_WORDS
from fuzz.frames import CLOSE, TEXT, Sent, conversation
from fuzz.judge import seen_of
from fuzz.tenants import Caller, Stage

SOCKET: Final = "WEBSOCKET /api/v1/jobs/{id}/events"
_ENDS_WITHIN_S: Final = 15.0
FINISHED: Final = 1000
"""The close code of a job that has ended."""
_INTERNAL: Final = 1011
_LIVE: Final = {
    "model": "scripted-story:chunks=30,rate=300",
    "backend": "scripted",
    "messages": [{"role": "user", "content": "Tell me."}],
}
_UPGRADE: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
_SWITCHED: Final = 101
_HEAD: Final = b"\0\0"
_LONGEST_SHORT: Final = 125
"""Bytes that a frame's second byte can tell."""


@dataclass
class Call:
    """One WebSocket: who opens it at which job, what it sends, and what it got."""

    caller: Caller
    job: str
    owner: Caller | None
    """None: nobody has the job."""
    headers: dict[str, str]
    query: str
    sent: list[Sent]
    is_cut: bool
    """Whether the client leaves without a close, inside of a frame."""
    is_early: bool
    """Whether it sends frames before the shim has accepted it, which RFC 6455 forbids."""
    events: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    status: int = 0
    """Of the handshake."""
    code: int = 0
    """Of the close; 0: the connection was cut."""
    is_reset: bool = False
    """Whether it was cut with frames of the client unread: the job may have ended by then."""

    @property
    def is_legal(self) -> bool:
        return all(each.is_legal for each in self.sent) and not (self.is_cut or self.is_early)

    @property
    def may_follow(self) -> bool:
        """Whether it has a key that may see the job."""
        return self.owner is not None and (self.caller.is_admin or self.owner is self.caller)

    @property
    def words(self) -> str:
        """The call, as a report shows it."""
        frames = [each.data[:40] for each in self.sent]
        return f"{self.caller.name}: {self.job}{self.query} {sorted(self.headers)} {frames}"


def made_call(at: Stage, caller: Caller, random: Random) -> Call:
    """A call of this caller; the same for the same state of the generator, but for ids."""
    owner = random.choice([caller, caller, caller, at.other(caller), None])
    job = "0" * 32 if owner is None else owner.things["/api/v1/jobs"]
    if owner is None and random.random() < 0.5:
        job = random.choice(["x", "%00", "..", "a" * 3000, "0" * 31])
    elif owner is not None and random.random() < 0.5:
        job = at.ask(owner, "POST", "/api/v1/jobs/chat", json=_LIVE)["id"]
        owner.own(job)
    key = caller.headers["authorization"].removeprefix("Bearer ")
    others = at.other(caller).headers["authorization"].removeprefix("Bearer ")
    headers = random.choice(
        [
            {"Authorization": f"Bearer {key}"},
            {"Sec-WebSocket-Protocol": f"fleet, {key}"},
            {"Authorization": f"Bearer {key}", "Sec-WebSocket-Protocol": f"fleet, {others}"},
        ]
    )
    query = random.choice(["", "", "", "?after=0-0", "?after=x", "?nothing=1", "?after=9-9"])
    cut, early = (random.random() < 0.1 for _ in range(2))
    return Call(caller, job, owner, headers, query, conversation(random), cut, early)


def fault_of(at: Stage, call: Call) -> str:
    """Make a call; what is wrong with what came, if anything."""
    try:
        _run(at, call)
    except TimeoutError:
        return f"not ended after {_ENDS_WITHIN_S:g} s"
    if call.code == _INTERNAL or call.status >= 500:
        return f"an internal error: {call.status}, closed with {call.code}"
    if not call.caller.is_admin:
        if call.events and not call.may_follow:
            return f"{call.caller.name} has events of what is not its own"
        if seen := seen_of(at.other(call.caller), call.text, call.job):
            return seen
    return _incomplete(call) if call.is_legal and not call.is_reset else ""


def _incomplete(call: Call) -> str:
    """What is missing at the end of a call that sent nothing wrong."""
    if call.status != _SWITCHED:
        return "" if call.status in {403, 404} else f"refused with {call.status}"
    if not call.code:
        return "cut off"
    if not call.may_follow or call.query not in {"", "?after=0-0"}:
        return "" if call.code >= 4000 or call.query == "?after=9-9" else f"closed with {call.code}"
    ids = [event["id"] for event in call.events if "id" in event]
    if call.code != FINISHED or not ids or call.events[-1]["type"] not in LAST_WORDS:
        return f"closed with {call.code} after {ids[-1:]}"
    return "" if len(ids) == len(set(ids)) else "an event came twice"


def _run(at: Stage, call: Call) -> None:
    """Send everything, and read to the end. Raises TimeoutError."""
    where = urlsplit(at.url)
    head = {**_UPGRADE, "Host": where.netloc, **call.headers}
    lines = [f"GET /api/v1/jobs/{call.job}/events{call.query} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in head.items()]
    address = (str(where.hostname), where.port or 0)
    with socket.create_connection(address, _ENDS_WITHIN_S) as line, line.makefile("rb") as answer:
        try:
            line.sendall("\r\n".join([*lines, "\r\n"]).encode())
            if not call.is_early:
                _read_head(answer, call)
            for each in call.sent:
                line.sendall(each.data)
            if call.is_cut:
                line.sendall(b"\x81\xfe\x01")
                return
            if call.is_early:
                _read_head(answer, call)
            _read_frames(answer, call)
        except (BrokenPipeError, ConnectionResetError):
            call.is_reset = True


def _read_head(answer: BinaryIO, call: Call) -> None:
    words = answer.readline().split()
    call.status = int(words[1]) if words else 0
    while answer.readline().strip():
        pass


def _read_frames(answer: BinaryIO, call: Call) -> None:
    """Read up to a close or the end."""
    while call.status == _SWITCHED and len(head := answer.read(2)) == len(_HEAD):
        opcode, size = head[0] & 15, head[1]
        if size > _LONGEST_SHORT:
            wide = 2 if size == _LONGEST_SHORT + 1 else 8
            size = int.from_bytes(answer.read(wide))
        data = answer.read(size)
        if opcode == TEXT:
            call.text += data.decode()
            call.events.append(json.loads(data))
        elif opcode == CLOSE:
            call.code = int.from_bytes(data[:2])
            call.text += data[2:].decode()
            return
