"""The `openai` client's background responses: two shims of one fleet, workers that die."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseStreamEvent
from support.fleet import Fleet, fleet
from support.processes import worker
from support.shim import serving, stage
from support.up import wait_until

pytestmark = pytest.mark.client("openai")

SLOW = "scripted-story:chunks=400,rate=20"
SHORT = "scripted-story:chunks=30,rate=20"
LONG = "scripted-story:chunks=200,rate=100"
MODELS = (SLOW, SHORT)
LEASE = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("responses")
    with fleet(folder, "openai", "scripted", models=MODELS, keepalive_s=1) as running:
        yield running


@pytest.fixture
def ask(at: Fleet) -> Iterator[OpenAI]:
    """A client that does not try again: a test must see what the first answer was."""
    with OpenAI(base_url=f"{at.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def other_url(at: Fleet) -> Iterator[str]:
    with serving(at.redis_url) as url:
        yield url


@pytest.fixture
def elsewhere(other_url: str) -> Iterator[OpenAI]:
    """A client of another shim."""
    with OpenAI(base_url=f"{other_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def here(backend: str) -> Any:
    return {"extra_body": {"backend": backend}}


def heard_a_word(stream: Any) -> str:
    """Read until the first word; the job that says it."""
    next(event for event in stream if event.type == "response.output_text.delta")
    job: str = stream.response.headers["x-fleet-job"]
    return job


def text(events: list[ResponseStreamEvent]) -> str:
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


@pytest.mark.feature("responses", "resume")
def test_the_background_is_polled_from_another_shim(ask: OpenAI, elsewhere: OpenAI) -> None:
    # litellm #36275: nobody is connected while it runs.
    told = ask.responses.create(model=SHORT, input="hello", background=True, **here("scripted"))
    wait_until(
        lambda: elsewhere.responses.retrieve(told.id).status not in {"queued", "in_progress"}
    )
    done = elsewhere.responses.retrieve(told.id)

    assert told.status in {"queued", "in_progress"}
    assert (done.status, len(done.output_text.split())) == ("completed", 30)


@pytest.mark.feature("responses", "resume")
def test_a_stream_that_breaks_off_is_taken_up_on_another_shim(
    ask: OpenAI, elsewhere: OpenAI
) -> None:
    # LocalAI #10993, openai-python #2828.
    stream = ask.responses.create(model=SHORT, input="hello", background=True, stream=True)
    heard = []
    for event in stream:
        heard.append(event)
        if event.sequence_number == 12:
            break
    stream.close()
    id = "resp_" + stream.response.headers["x-fleet-job"]
    rest = list(elsewhere.responses.retrieve(id, stream=True, starting_after=12))
    with elsewhere.responses.stream(response_id=id, starting_after=12) as helped:
        again = [event.sequence_number for event in helped]
        whole = helped.get_final_response()
    last = rest[-1].sequence_number
    with elsewhere.responses.stream(response_id=id, starting_after=last) as ended:
        assert ended.get_final_response() == whole

    assert [e.sequence_number for e in rest] == again == list(range(13, 13 + len(rest)))
    assert rest[-1].type == "response.completed"
    assert text([*heard, *rest]) == whole.output_text


@pytest.mark.feature("responses", "resume")
async def test_an_asynchronous_client_resumes_too(at: Fleet, other_url: str) -> None:
    async with (
        AsyncOpenAI(base_url=f"{at.url}/v1", api_key="unused") as ask,
        AsyncOpenAI(base_url=f"{other_url}/v1", api_key="unused") as elsewhere,
    ):
        told = await ask.responses.create(model=SHORT, input="hello", background=True)
        stream = await elsewhere.responses.retrieve(told.id, stream=True, starting_after=4)
        events = [event async for event in stream]

        assert events[0].sequence_number == 5
        assert events[-1].type == "response.completed"


@pytest.mark.feature("responses", "cancel")
def test_what_runs_is_cancelled_and_the_backend_s_work_with_it(
    at: Fleet, ask: OpenAI, elsewhere: OpenAI
) -> None:
    before = at.seen()["aborted"]
    stream = ask.responses.create(
        model=SLOW, input="hello", background=True, stream=True, **here("openai")
    )
    cancelled = elsewhere.responses.cancel(f"resp_{heard_a_word(stream)}")
    types = [str(event.type) for event in stream]
    wait_until(lambda: at.seen()["aborted"] == before + 1)

    assert cancelled.status == "cancelled"
    assert elsewhere.responses.cancel(cancelled.id) == cancelled
    assert types[-1] == "response.incomplete"


@pytest.mark.feature("responses", "cancel")
def test_who_hangs_up_ends_the_job_and_the_backend_s_work(at: Fleet, ask: OpenAI) -> None:
    # litellm #36123: a disconnect on /v1/responses does not reach the backend.
    before = at.seen()["aborted"]
    stream = ask.responses.create(model=SLOW, input="hello", stream=True, **here("openai"))
    job = heard_a_word(stream)
    stream.close()
    wait_until(lambda: at.job(job)["status"] == "cancelled")
    wait_until(lambda: at.seen()["aborted"] == before + 1)

    assert ask.responses.retrieve(f"resp_{job}").status == "cancelled"


@pytest.mark.feature("responses", "cancel")
def test_who_hangs_up_on_the_background_does_not_end_it(at: Fleet, ask: OpenAI) -> None:
    # litellm #36275: a disconnect cancels what runs in the background.
    stream = ask.responses.create(
        model=SHORT, input="hello", stream=True, background=True, **here("openai")
    )
    job = heard_a_word(stream)
    stream.close()
    wait_until(lambda: at.job(job)["status"] != "running")

    assert len(ask.responses.retrieve(f"resp_{job}").output_text.split()) == 30


@pytest.mark.feature("responses")
def test_a_response_that_is_deleted_is_gone(ask: OpenAI, elsewhere: OpenAI) -> None:
    answer = ask.responses.create(model="scripted-echo", input="hello")
    elsewhere.responses.delete(answer.id)

    with pytest.raises(openai.NotFoundError) as gone:
        ask.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError) as lost:
        ask.responses.create(model="scripted-echo", input="more", previous_response_id=answer.id)
    assert gone.value.code == "response_not_found"
    assert (lost.value.code, lost.value.param) == (
        "previous_response_not_found", "previous_response_id",
    )  # fmt: skip


@pytest.mark.feature("responses", "resume")
async def test_an_answer_outlives_its_worker_and_the_shim_it_was_asked_of(
    redis_url: str, tmp_path: Path
) -> None:
    with serving(redis_url) as url, worker(redis_url, tmp_path, **LEASE) as first:
        async with (
            stage(url, redis_url) as at,
            AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as ask,
        ):
            await first.ready(at.relay)
            stream = await ask.responses.create(
                model=LONG, input="hello", background=True, stream=True, **here("scripted")
            )
            heard = [await anext(stream.__aiter__()) for _ in range(40)]
            first.send(signal.SIGKILL)
            await stream.close()
    with serving(redis_url) as url, worker(redis_url, tmp_path, **LEASE):
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="unused") as ask:
            id = "resp_" + stream.response.headers["x-fleet-job"]
            resumed = await ask.responses.retrieve(id, stream=True, starting_after=39)
            async with asyncio.timeout(40):
                rest = [event async for event in resumed]
            whole = await ask.responses.retrieve(id)
            again = await ask.responses.create(
                model="scripted-story:chunks=200", input="hello", **here("scripted")
            )

    assert [e.sequence_number for e in rest] == list(range(40, 40 + len(rest)))
    assert text([*heard, *rest]) == whole.output_text == again.output_text
