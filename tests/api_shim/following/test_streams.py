"""What every streaming surface promises, asked of each of them in the same way.

The test plays the worker: it writes the events, so that every moment of a stream can be reached.
Subjects: api_shim/following/answer_stream.py, api_shim/following/event_stream.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from support.redis_server import RedisServer
from support.shim import Stage, serving, stage
from support.stream_grammar import Heard, ollama_lines
from support.surfaces import SURFACES, Client, Surface, ask, resume

from contract.events import Done, Event, Failed, Reset, Resumed
from relay.claims import StartedJob
from relay.records import requested

WORDS = tuple(f"word {number}, " for number in range(12))
TEXT = "".join(WORDS)
SURFACE = pytest.mark.parametrize("surface", SURFACES, ids=lambda each: each.name)
TEXTS = pytest.mark.parametrize(
    "surface", [each for each in SURFACES if each.kind == "chat"], ids=lambda each: each.name
)
RESUMABLE = pytest.mark.parametrize(
    "surface", [s for s in SURFACES if s.is_native or s.resumes], ids=lambda each: each.name
)
DROP_IN = pytest.mark.parametrize(
    "surface", [s for s in SURFACES if not s.is_native], ids=lambda each: each.name
)


@pytest.fixture(scope="module")
def impatient_shim(redis_server: RedisServer) -> Iterator[str]:
    """A shim whose streams send something after a tenth of a second of silence."""
    with serving(redis_server.url, keepalive_s=0.1) as url:
        yield url


@asynccontextmanager
async def on(shim: str, redis_url: str) -> AsyncGenerator[Stage]:
    async with stage(shim, redis_url) as at:
        await at.announce()
        yield at


async def claimed(at: Stage, surface: Surface, text: bytes = b"") -> StartedJob:
    """The next job that says so: another test's call may have come after the server was emptied."""
    async with asyncio.timeout(20):
        while True:
            claim = await at.relay.start_next(f"scripted.{surface.kind}", "w1")
            if claim is not None and text in claim.request:
                return claim
            await asyncio.sleep(0.005)


class Attempt:
    """A worker's attempt at the next job."""

    def __init__(self, at: Stage, claim: StartedJob) -> None:
        self.job = claim.record.id
        self._log = at.relay.attempt_log(claim)

    async def say(self, *events: Event) -> None:
        for event in events:
            self._log.append(event)
        await self._log.flush()


async def attempt(at: Stage, surface: Surface) -> Attempt:
    return Attempt(at, await claimed(at, surface))


async def begun(at: Stage, surface: Surface, client: Client, *words: str) -> Attempt:
    """The attempt at the client's job, of which the client has read these words."""
    worker = await attempt(at, surface)
    await worker.say(*(surface.word(word) for word in words))
    await client.until(lambda heard: heard.text == "".join(words))
    return worker


def says_why(surface: Surface, heard: Heard) -> bool:
    """Whether the client knows what its job waits for; lines of Ollama's have no place for it."""
    return surface.read is ollama_lines or any("1 job" in each for each in heard.waits)


async def status_of(at: Stage, job: str) -> tuple[str, str]:
    """How a job ended, and by whom."""
    async with asyncio.timeout(20):
        event = (await at.relay.frames(job))[-1].event
    return event.type, getattr(event, "by", "")


@SURFACE
async def test_words_come_in_order_and_then_one_last_event(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http)
        worker = await begun(at, surface, client, *WORDS[:3])
        await worker.say(*surface.answer(*WORDS)[3:], Done())
        heard = await client.ended()

        assert (heard.text, heard.end) == (TEXT, "done")
        assert surface.is_socket or client.headers["cache-control"] == "no-store"


@SURFACE
async def test_the_response_that_is_not_streamed_has_the_same_text(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        asking = asyncio.create_task(surface.whole(at.http, "hello"))
        await at.relay.run(await claimed(at, surface), *surface.answer(*WORDS))

        assert await asking == TEXT


@TEXTS
async def test_a_long_response_that_is_not_streamed_has_all_of_it(
    surface: Surface, shim: str, redis_url: str
) -> None:
    words = [f"{number} ".ljust(60_000, "é") for number in range(40)]
    async with on(shim, redis_url) as at:
        asking = asyncio.create_task(surface.whole(at.http, "hello"))
        claim = await claimed(at, surface)
        await at.relay.run(claim, *surface.answer(*words))
        told = await asking
        again = [
            await at.http.get(f"{surface.path}/{id}_{claim.record.id}", headers=surface.headers)
            for id in ("resp", "msg")
            if surface.path in {"/v1/responses", "/v1/messages"}
        ]

    assert told == "".join(words)
    assert all(surface.text_of(each.json()) == told for each in again if each.status_code == 200)


@SURFACE
async def test_a_request_that_cannot_be_served_has_a_status_and_the_surfaces_error(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http, model="nobody-has-it")
        await client.closed()

        assert client.status == 404
        assert client.code in {"model_not_found", "unknown_model"}


@SURFACE
async def test_a_failure_before_the_first_word_has_a_status_unless_the_stream_has_begun(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http)
        worker = await attempt(at, surface)
        await worker.say(Failed(code="model_missing", message="it has no such model"))
        if surface.begins_at_once:
            heard = await client.ended()

            assert (client.status, heard.end) == (200, "failed")
        else:
            await client.closed()

            assert client.status == 404
            assert client.code in {"model_not_found", "model_missing"}


@DROP_IN
async def test_a_backend_that_stays_busy_is_told_with_the_time_to_come_back(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http)
        claim = await claimed(at, surface)
        busy = Failed(code="backend_busy", message="too many", retryable=True, retry_after_s=7.2)
        await Attempt(at, claim).say(busy)
        await client.closed()

        assert claim.record.busy_wait_s == 30
        assert requested(claim.request).busy_wait_s is None  # workers of the version before read it
        if not surface.begins_at_once:
            assert client.status == (529 if "messages" in surface.path else 503)
            assert client.headers["retry-after"] == "8"
            assert client.headers.get("x-should-retry", "true") == "true"


@DROP_IN
async def test_how_long_a_busy_backend_is_asked_is_the_clients_to_say(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        own = ask(surface, at.http, X_Fleet_Busy_Wait="2.5")
        claims = [await claimed(at, surface)]
        stays = ask(surface, at.http, X_Fleet_On_Disconnect="continue")
        claims.append(await claimed(at, surface))
        bad = ask(surface, at.http, X_Fleet_Busy_Wait="soon")
        await bad.closed()
        waits = [claim.record.busy_wait_s for claim in claims]
        for client in (own, stays):
            await client.leave()

        assert waits == [2.5, None]
        assert bad.status in {400, 422}


@SURFACE
async def test_a_failure_after_the_first_word_is_the_last_event(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http)
        worker = await begun(at, surface, client, *WORDS[:3])
        await worker.say(surface.word(WORDS[3]), Failed(code="server_fault", message="it broke"))
        heard = await client.ended()

        assert (client.status, heard.text) == (200, "".join(WORDS[:4]))
        assert heard.end in {"failed", "error"}
        assert heard.code in {"server_fault", "server_error"}


@SURFACE
async def test_a_client_that_waits_is_told_why_and_then_gets_its_answer(
    surface: Surface, impatient_shim: str, redis_url: str
) -> None:
    async with on(impatient_shim, redis_url) as at:
        before = ask(surface, at.http)
        await before.until(lambda heard: heard.waits)
        client = ask(surface, at.http)
        await client.until(lambda heard: len(heard.waits) > 1 and says_why(surface, heard))
        for _ in (before, client):
            await at.relay.run(await claimed(at, surface), *surface.answer(*WORDS))
        ended = await client.ended()

        assert client.status == 200
        assert (ended.text, ended.end) == (TEXT, "done")


@DROP_IN
async def test_a_failure_after_waiting_is_an_event_because_the_head_is_sent(
    surface: Surface, impatient_shim: str, redis_url: str
) -> None:
    async with on(impatient_shim, redis_url) as at:
        client = ask(surface, at.http)
        await client.until(lambda heard: heard.waits)
        worker = await attempt(at, surface)
        await worker.say(Failed(code="server_fault", message="it broke"))
        heard = await client.ended()

        assert (client.status, heard.text) == (200, "")
        assert heard.end in {"failed", "error"}


@SURFACE
@pytest.mark.parametrize("policy", ["cancel", "cancel_after_s=0.1"])
async def test_a_client_that_leaves_ends_its_job(
    surface: Surface, policy: str, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http, X_Fleet_On_Disconnect=policy)
        worker = await begun(at, surface, client, *WORDS[:3])
        await client.leave()

        assert await status_of(at, worker.job) == ("cancelled", "disconnect")


@SURFACE
async def test_a_job_that_is_to_continue_outlives_its_client(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http, X_Fleet_On_Disconnect="continue")
        worker = await begun(at, surface, client, *WORDS[:3])
        await client.leave()
        await worker.say(*surface.answer(*WORDS)[3:], Done())
        whole = await at.http.get(f"/api/v1/jobs/{worker.job}")

        assert whole.json()["status"] == "done"


@SURFACE
async def test_a_cancel_in_the_middle_is_the_last_event(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http)
        worker = await begun(at, surface, client, *WORDS[:3])
        await at.http.delete(f"/api/v1/jobs/{worker.job}")
        heard = await client.ended()

        assert heard.text == "".join(WORDS[:3])
        assert heard.end in {"cancelled", "error"}
        assert heard.end == "cancelled" or heard.code == "cancelled"


@SURFACE
async def test_an_attempt_that_continues_leaves_no_seam(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http)
        worker = await begun(at, surface, client, *WORDS[:3])
        await worker.say(Resumed(attempt=2, reason="its worker died"))
        await worker.say(*surface.answer(*WORDS)[3:], Done())
        heard = await client.ended()

        assert (heard.text, heard.end) == (TEXT, "done")


@SURFACE
async def test_words_that_are_taken_back_are_shown_or_end_the_stream(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http)
        worker = await begun(at, surface, client, "old ", "text ")
        await worker.say(Reset(attempt=2, reason="its worker died"))
        if surface.is_native:
            await worker.say(*surface.answer(*WORDS), Done())
        heard = await client.ended()

        if surface.is_native:
            assert (heard.text, heard.end) == (TEXT, "done")
        else:
            assert (heard.text, heard.end) == ("old text ", "error")
            assert heard.code == "answer_restarted"


@SURFACE
async def test_an_attempt_of_which_nothing_was_sent_is_not_seen(
    surface: Surface, impatient_shim: str, redis_url: str
) -> None:
    if surface.name == "openai-responses":
        pytest.skip("its stream begins with the job: there is always something sent")
    async with on(impatient_shim, redis_url) as at:
        client = ask(surface, at.http)
        worker = await attempt(at, surface)
        # A finished image is held back, because the last one's event has the usage.
        await worker.say(*surface.answer("old")[1:])
        await client.until(lambda heard: heard.waits or surface.is_native)
        await worker.say(Reset(attempt=2, reason="x"), *surface.answer(*WORDS), Done())
        heard = await client.ended()

        assert (heard.text, heard.end) == (TEXT, "done")


@RESUMABLE
async def test_a_client_that_comes_back_with_any_cursor_reads_the_rest_on_another_shim(
    surface: Surface, shim: str, impatient_shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at, httpx.AsyncClient(base_url=impatient_shim) as other:
        client = ask(surface, at.http)
        await at.relay.run(await claimed(at, surface), *surface.answer(*WORDS))
        first = await client.ended()
        for number, cursor in enumerate(first.cursors, start=1):
            rest = await resume(surface, other, client.job, cursor).ended()
            left = first.cursors[number:]
            if surface.name == "openai-responses":
                # Its clients fail at a stream without a last event: they get that one again.
                left = left or first.cursors[-1:]

            assert rest.cursors == left
            assert first.text.endswith(rest.text)
            assert rest.end == ("done" if rest.cursors else None)


@RESUMABLE
async def test_a_client_that_comes_back_in_the_middle_loses_nothing(
    surface: Surface, shim: str, impatient_shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at, httpx.AsyncClient(base_url=impatient_shim) as other:
        client = ask(surface, at.http, X_Fleet_On_Disconnect="cancel_after_s=30")
        worker = await begun(at, surface, client, *WORDS[:3])
        await client.leave()
        back = resume(surface, other, worker.job, client.heard.cursors[-1])
        await back.until_head()
        await worker.say(*surface.answer(*WORDS)[3:], Done())
        rest = await back.ended()

        assert client.heard.text + rest.text == TEXT
        assert rest.end == "done"


@RESUMABLE
async def test_a_client_that_comes_back_while_its_job_waits_is_told_why(
    surface: Surface, impatient_shim: str, redis_url: str
) -> None:
    async with on(impatient_shim, redis_url) as at:
        before = ask(surface, at.http)
        await before.until(lambda heard: heard.waits)
        client = ask(surface, at.http, X_Fleet_On_Disconnect="continue")
        await client.until(lambda heard: heard.waits)
        await client.leave()
        back = resume(surface, at.http, client.job)

        assert await back.until(lambda heard: says_why(surface, heard))
        await back.leave()
        await before.leave()


@RESUMABLE
async def test_a_cursor_of_words_that_were_taken_back_is_told_so(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http, X_Fleet_On_Disconnect="continue")
        worker = await begun(at, surface, client, "old ", "text ")
        await client.leave()
        await worker.say(Reset(attempt=2, reason="x"), *surface.answer(*WORDS), Done())
        rest = await resume(surface, at.http, worker.job, client.heard.cursors[-1]).ended()
        anew = await resume(surface, at.http, worker.job).ended()

        assert (rest.text, rest.end) == (TEXT, "done") if surface.is_native else ("", "error")
        assert rest.code == (None if surface.is_native else "answer_restarted")
        assert (anew.text, anew.end) == (TEXT, "done")


@SURFACE
async def test_a_request_repeated_with_its_key_reads_the_same_stream(
    surface: Surface, shim: str, redis_url: str
) -> None:
    async with on(shim, redis_url) as at:
        client = ask(surface, at.http, "asked twice", Idempotency_Key="once")
        await at.relay.run(await claimed(at, surface, b"asked twice"), *surface.answer(*WORDS))
        first = await client.ended()
        again = ask(surface, at.http, "asked twice", Idempotency_Key="once")
        second = await again.ended()

        # Where the first one stood in its queue, and for how long, is in no log.
        assert (second.text, second.end, second.code) == (first.text, first.end, first.code)
        assert second.cursors == first.cursors
        assert again.job == client.job
        assert surface.is_native or again.headers["idempotent-replayed"] == "true"


@SURFACE
async def test_a_client_that_does_not_read_holds_up_nobody_and_loses_nothing(
    surface: Surface, shim: str, redis_url: str
) -> None:
    # Far more than sockets and buffers hold, so the stream stops until the client reads on.
    many = [f"{number}".ljust(100_000, ".") for number in range(80)]
    async with on(shim, redis_url) as at:
        # One after the other: a worker takes whichever job was enqueued first.
        slow = ask(surface, at.http)
        workers = [await begun(at, surface, slow, "a")]
        swift = ask(surface, at.http)
        workers.append(await begun(at, surface, swift, "a"))
        slow.pause()
        for worker in workers:
            await worker.say(*surface.answer("a", *many)[1:], Done())
        whole = (await swift.ended()).text
        unread = len(slow.raw)
        late = await slow.ended()

        assert unread < len(whole) // 2
        assert late.text == whole == "a" + "".join(many)


async def test_a_shim_that_stops_ends_every_stream_so_that_it_can_be_taken_up(
    redis_url: str,
) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        with serving(redis_url) as url:
            http.base_url = httpx.URL(url)
            async with on(url, redis_url) as at:
                clients = []
                for surface in SURFACES:
                    clients.append(ask(surface, http))
                    await begun(at, surface, clients[-1], *WORDS[:3])
        ended = [await client.ended() for client in clients]

        # A stream with a cursor breaks off, and its client comes back; others get an error.
        assert [each.code for each in ended] == [
            None if surface.is_native else "shim_stopping" for surface in SURFACES
        ]
