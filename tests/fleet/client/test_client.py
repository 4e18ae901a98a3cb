"""The clients against shims that fail in every way that a shim can; no network."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from contract.chat import ChatRequest, Message, Tool
from contract.embeddings import pack
from contract.errors import (
    InvalidRequest,
    JobNotFound,
    ServerFault,
)
from contract.events import (
    Cancelled,
    Delta,
    Done,
    Event,
    EventId,
    Failed,
    Frame,
    Reset,
    Started,
    Vectors,
)
from fleet import AsyncClient, Client
from fleet.client.errors import (
    AnswerRestarted,
    FleetUnreachable,
    GaveUpWaiting,
    JobCancelled,
    NoFleet,
)

JOB = "0" * 32
STORY: Sequence[Event] = (
    Started(attempt=1, worker="w", backend="b"),
    Delta(content="one "),
    Delta(content="two "),
    Delta(content="three"),
    Done(),
)
ACCEPTED = {
    "id": JOB,
    "status": "queued",
    "queue": "b.chat",
    "position": 1,
    "eta_s": None,
    "events_url": f"/api/v1/jobs/{JOB}/events",
}


def sse(frame: Frame) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (
        str(frame.id).encode(),
        frame.type.encode(),
        frame.body,
    )


class Breaking(httpx.AsyncByteStream):
    """A body that loses its connection after some events."""

    def __init__(self, frames: Sequence[Frame], survives: int) -> None:
        self.frames = frames
        self.survives = survives

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for frame in self.frames[: self.survives]:
            yield sse(frame)
        if len(self.frames) > self.survives:
            raise httpx.ReadError("connection reset")


class Shim:
    """Answers like a shim whose streams break after `survives` events."""

    def __init__(self, events: Sequence[Event] = STORY, survives: int = 100) -> None:
        self.log = [Frame.of(EventId(1, at), 1.0, event) for at, event in enumerate(events, 1)]
        self.survives = survives
        self.asked: list[tuple[str, str]] = []
        self.cancelled = False
        self.bodies: list[dict[str, object]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.host, str(request.url.params.get("after", ""))))
        if request.method == "POST":
            self.bodies.append(json.loads(request.content))
            return httpx.Response(202, json=ACCEPTED)
        if request.method == "DELETE":
            self.cancelled = True
            return httpx.Response(200, json={})
        if request.url.path.endswith("/events"):
            after = EventId.parse(request.url.params["after"])
            rest = [frame for frame in self.log if frame.id and frame.id > after]
            return httpx.Response(200, stream=Breaking(rest, self.survives))
        return httpx.Response(200, json=self.view())

    def view(self) -> dict[str, object]:
        return {
            "id": JOB, "v": 1, "kind": "chat", "status": "done", "queue": "b.chat",
            "backend": "b", "tenant": "default", "priority": "standard", "attempt": 1,
            "max_attempts": 3, "created_at": 1.0, "result": {"status": "done"},
        }  # fmt: skip


def client(
    handler: Callable[[httpx.Request], httpx.Response], url: str = "http://a,http://b"
) -> AsyncClient:
    return AsyncClient(url, give_up_s=5.0, transport=httpx.MockTransport(handler))


@pytest.mark.parametrize("survives", [1, 2, 3, 100])
async def test_a_follower_hears_everything_once_however_often_the_line_breaks(
    survives: int,
) -> None:
    async with client(Shim(survives=survives)) as fleet:
        assert [event async for event in fleet.job(JOB).events()] == list(STORY)


async def test_a_follower_takes_up_at_the_next_shim_after_the_last_event_it_saw() -> None:
    shim = Shim(survives=2)
    async with client(shim) as fleet:
        _ = [event async for event in fleet.job(JOB).events()]

    assert shim.asked == [("a", "0-0"), ("b", "1-2"), ("a", "1-4")]


async def test_a_follower_of_a_job_that_has_said_all_ends() -> None:
    async with client(Shim()) as fleet:
        assert [event async for event in fleet.job(JOB).events(EventId(1, 5))] == []


async def test_no_shim_at_all_is_said_soon() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with client(refuse) as fleet:
        with pytest.raises(FleetUnreachable, match="http://a, http://b"):
            await fleet.jobs()


@pytest.mark.parametrize("url", ["http://xn--a", "http://a:b", "http://a,http://xn--"])
async def test_an_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(FleetUnreachable, match="FLEET_URL is not an address"):
        async with AsyncClient(url) as fleet:
            await fleet.jobs()


async def test_the_second_shim_is_asked_when_the_first_is_gone() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "a":
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json={"jobs": [], "next": None})

    async with client(handler) as fleet:
        assert (await fleet.jobs()).jobs == ()


async def test_an_enqueue_that_may_have_been_heard_is_repeated_with_its_key() -> None:
    keys = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("reset", request=request)
        return httpx.Response(202, json=ACCEPTED)

    async with client(handler) as fleet:
        await fleet.enqueue("chat", model="m", messages=[{"role": "user", "content": "x"}])

    assert len(keys) == 2
    assert keys[0] == keys[1]


async def test_a_question_without_a_key_that_may_have_been_heard_is_not_repeated() -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise httpx.ReadError("reset", request=request)

    async with client(handler) as fleet:
        with pytest.raises(FleetUnreachable, match="fleet jobs"):
            await fleet.add_backend("b", "ollama://127.0.0.1:1")

    assert len(asked) == 1


async def test_a_problem_is_raised_as_its_class() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"code": "job_not_found", "detail": "gone"})

    async with client(handler) as fleet:
        with pytest.raises(JobNotFound, match="gone"):
            await fleet.job(JOB).result()


async def test_a_wrong_request_is_refused_before_it_is_sent() -> None:
    shim = Shim()
    async with client(shim) as fleet:
        with pytest.raises(InvalidRequest, match="messages"):
            await fleet.enqueue("chat", model="m", messages=[])

    assert shim.asked == []


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (Failed(code="server_fault", message="broke"), ServerFault),
        (Cancelled(by="caller"), JobCancelled),
    ],
)
async def test_a_result_that_never_came_raises_why(end: Event, kind: type[Exception]) -> None:
    async with client(Shim([Delta(content="x"), end])) as fleet:
        with pytest.raises(kind):
            await fleet.job(JOB).result()


async def test_giving_up_says_how_to_go_on() -> None:
    class Silent(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

    async with client(lambda _: httpx.Response(200, stream=Silent())) as fleet:
        with pytest.raises(GaveUpWaiting, match="fleet jobs watch"):
            await fleet.job(JOB).result(0.05)


async def test_leaving_a_chat_early_cancels_it() -> None:
    shim = Shim()
    async with client(shim) as fleet:
        words = fleet.chat("hi", model="m")
        assert await anext(words) == "one "
        await words.aclose()

    assert shim.cancelled


async def test_a_chat_cannot_take_words_back() -> None:
    events = [Delta(content="x"), Reset(attempt=2, reason="died"), Delta(content="y"), Done()]
    async with client(Shim(events)) as fleet:
        with pytest.raises(AnswerRestarted):
            _ = [word async for word in fleet.chat("hi", model="m")]


async def test_embed_gives_rows_in_order() -> None:
    vectors = Vectors(index=0, count=2, dimension=3, data=pack([[1, 2, 3], [4, 5, 6]]))
    shim = Shim([vectors, Done()])
    async with client(shim) as fleet:
        found = await fleet.embed(["a", "b", "c", "d"], model="m", texts_a_job=2)

    assert found.dtype == np.float32
    assert found.tolist() == [[1, 2, 3], [4, 5, 6]] * 2
    assert [body["input"] for body in shim.bodies] == [["a", "b"], ["c", "d"]]


def test_the_plain_client_is_the_same() -> None:
    shim = Shim(survives=2)
    with Client("http://a", transport=httpx.MockTransport(shim)) as fleet:
        job = fleet.enqueue("chat", model="m", messages=[{"role": "user", "content": "x"}])

        assert job.id == JOB
        assert list(job.events()) == list(STORY)
        assert job.result().content == "one two three"
        assert "".join(fleet.chat("hi", model="m")) == "one two three"
        assert job.view().status == "done"


def test_leaving_a_plain_chat_early_cancels_it() -> None:
    shim = Shim()
    with Client("http://a", transport=httpx.MockTransport(shim)) as fleet:
        words = fleet.chat("hi", model="m")
        assert next(words) == "one "
        words.close()

    assert shim.cancelled


@pytest.mark.parametrize(
    "words",
    ["half \ud83d", [{"role": "user", "content": "half \ud83d"}],
     [Message(role="user", content="half \ud83d")]],
)  # fmt: skip
async def test_what_is_no_text_is_refused_by_name_before_it_is_sent(words: Any) -> None:
    async with AsyncClient("http://127.0.0.1:1") as fleet:
        with pytest.raises(InvalidRequest, match=r"chat\.messages\.0\.content"):
            await anext(fleet.chat(words, model="m"))


async def test_the_name_of_a_field_that_is_no_text_is_refused() -> None:
    tool = Tool(name="f", parameters={"\ud83d": 1})
    asked = ChatRequest(model="m", messages=(Message(role="user", content="x"),), tools=(tool,))
    async with AsyncClient("http://127.0.0.1:1") as fleet:
        with pytest.raises(InvalidRequest, match="the name of a field"):
            await fleet.enqueue(asked)


@pytest.mark.parametrize(
    "body", [b"", b"<html>hello</html>", b"[]", b"{}", b"null", b'"a"', b"\xff"]
)
async def test_what_answers_otherwise_than_a_fleet_is_said_to_be_none(body: bytes) -> None:
    async with client(lambda _: httpx.Response(200, content=body)) as fleet:
        for call in (
            fleet.models(), fleet.jobs(), fleet.job(JOB).view(), fleet.queues(), fleet.limits(),
            fleet.aliases(), fleet.webhooks.list(), fleet.batches.newest(),
            fleet.batches.look("batch_1"), fleet.batches.page(1), fleet.remove_backend("b"),
        ):  # fmt: skip
            with pytest.raises(NoFleet, match="does not answer as a fleet"):
                await call
