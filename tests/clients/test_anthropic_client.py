"""The `anthropic` client, current and unmodified, over a server like vLLM and over scripts."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_tool
from pydantic import BaseModel
from support.fleet import Fleet, fleet
from support.message_grammar import Told, checked
from support.up import wait_until

from workers.scripted.picture import png

pytestmark = pytest.mark.client("anthropic")

SLOW = "scripted-story:chunks=400,rate=20"
LATE = "scripted-story:chunks=2,first=1.6"
BROKEN = "scripted-story:fail=error:3"
AGAIN = "scripted-tools:fail=cut:1,times=1"
LONG = "scripted-story:fail=context"
TWO_CALLS = "scripted-tools:calls=2"
MODELS = (SLOW, LATE, BROKEN, LONG, TWO_CALLS)
HELLO: Any = [{"role": "user", "content": "hello you"}]
LOOK: Any = {"name": "look", "description": "Look.", "input_schema": {"type": "object"}}
HEADERS = {"anthropic-version": "2023-06-01"}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("anthropic")
    with fleet(folder, "vllm", "scripted", models=MODELS, keepalive_s=1) as running:
        yield running


@pytest.fixture
def ask(at: Fleet) -> Iterator[Anthropic]:
    """A client that does not try again: a test must see what the first answer was."""
    with Anthropic(base_url=at.url, api_key="unused", max_retries=0) as client:
        yield client


def streamed(at: Fleet, *, headers: dict[str, str] | None = None, **body: Any) -> Told:
    """The stream of a request, checked against the grammar."""
    whole = {"max_tokens": 100, "messages": HELLO, "stream": True, **body}
    answer = httpx.post(
        f"{at.url}/v1/messages", json=whole, headers={**HEADERS, **(headers or {})}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return checked(answer.content)


@pytest.mark.feature("chat")
def test_a_message_is_answered(ask: Anthropic, at: Fleet) -> None:
    message = ask.messages.create(
        model="scripted-echo", max_tokens=50, messages=HELLO, metadata={"user_id": "u-7"}
    )

    assert [block.to_dict()["text"] for block in message.content] == ["hello you"]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.output_tokens, message.usage.service_tier) == (2, "standard")
    assert message._request_id
    assert at.job(message.id.removeprefix("msg_"))["metadata"] == {"user_id": "u-7"}


@pytest.mark.parametrize("backend", ["vllm", "scripted"])
@pytest.mark.feature("streams")
def test_streams_keep_the_grammar(at: Fleet, backend: str) -> None:
    echo = streamed(at, model="scripted-echo", backend=backend)
    thoughts = streamed(
        at, model="scripted-think", backend=backend,
        thinking={"type": "enabled", "budget_tokens": 2000},
    )  # fmt: skip
    calls = streamed(at, model=TWO_CALLS, backend=backend, tools=[LOOK])

    assert (echo.text, echo.ending["stop_reason"]) == ("hello you", "end_turn")
    assert [block["type"] for block in thoughts.blocks] == ["thinking", "text"]
    assert calls.ending["stop_reason"] == "tool_use"
    assert [block["input"]["number"] for block in calls.blocks] == [0, 1]
    assert len({block["id"] for block in calls.blocks}) == 2


@pytest.mark.feature("streams")
def test_the_stream_helper_puts_the_message_together(ask: Anthropic) -> None:
    with ask.messages.stream(
        model=TWO_CALLS, max_tokens=50, messages=HELLO, tools=[LOOK]
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    with ask.messages.stream(model="scripted-echo", max_tokens=50, messages=HELLO) as words:
        text = "".join(words.text_stream)

    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert [block.type for block in message.content] == ["tool_use", "tool_use"]
    assert message.usage.output_tokens == 2
    assert text == "hello you"


@pytest.mark.feature("streams")
async def test_the_async_client_streams_many_at_once(at: Fleet) -> None:
    async with AsyncAnthropic(base_url=at.url, api_key="unused") as client:

        async def one(word: str) -> str:
            turn: Any = [{"role": "user", "content": word}]
            async with client.messages.stream(
                model="scripted-echo", max_tokens=9, messages=turn
            ) as stream:
                return await stream.get_final_text()

        texts = await asyncio.gather(*(one(f"w{n}") for n in range(8)))

    assert texts == [f"w{n}" for n in range(8)]


@pytest.mark.feature("tools")
def test_the_tool_runner_runs_its_tools_until_the_end(ask: Anthropic) -> None:
    asked: list[str] = []

    @beta_tool
    def look(place: str) -> str:
        """Look at a place.

        Args:
            place: Where.
        """
        asked.append(place)
        return f"{place} is empty"

    turns = [
        {"text": "Looking.", "calls": [{"name": "look", "arguments": {"place": "the box"}}]},
        {"calls": [{"name": "look", "arguments": {"place": f"bag {n}"}} for n in (1, 2)]},
        "All empty.",
    ]
    prompt: Any = [{"role": "user", "content": f"Go. <turns>{json.dumps(turns)}</turns>"}]
    runner = ask.beta.messages.tool_runner(
        model="scripted-tools", max_tokens=99, messages=prompt, tools=[look]
    )
    last = runner.until_done()

    assert asked == ["the box", "bag 1", "bag 2"]
    assert last.content[0].to_dict()["text"] == "All empty."


def test_a_thread_continues_a_message_by_its_id(ask: Anthropic) -> None:
    turns = ["first", {"text": "second", "calls": [{"name": "look", "arguments": {}}]}, "third"]
    prompt: Any = [{"role": "user", "content": f"Go. <turns>{json.dumps(turns)}</turns>"}]
    thread = ask.beta.messages.thread(
        model="scripted-tools", max_tokens=99, messages=prompt, tools=[LOOK], system="Be brief."
    )

    first = thread.send()
    second = thread.send({"role": "user", "content": "more"})
    result: Any = {"type": "tool_result", "tool_use_id": second.content[1].id, "content": "empty"}
    third = thread.send({"role": "user", "content": [result]})

    texts = [each.content[0].to_dict()["text"] for each in (first, second, third)]
    assert texts == ["first", "second", "third"]
    assert third.usage.input_tokens < 20  # the scripted server counts the last user message
    with pytest.raises(anthropic.NotFoundError) as lost:
        ask.beta.messages.create(
            model="scripted-tools", max_tokens=9, messages=prompt,
            thread={"type": "continue", "previous_message_id": "msg_" + "0" * 32},
        )  # fmt: skip
    assert lost.value.error_code == "thread_not_found"


@pytest.mark.feature("schema")
def test_a_structured_answer_is_parsed(ask: Anthropic) -> None:
    class Found(BaseModel):
        place: str

    turns = ['{"place": "the box"}']
    prompt: Any = [{"role": "user", "content": f"<turns>{json.dumps(turns)}</turns>"}]

    message = ask.messages.parse(
        model="scripted-tools", max_tokens=99, messages=prompt, output_format=Found
    )

    assert message.parsed_output == Found(place="the box")


@pytest.mark.feature("vision")
def test_images_reach_the_model(ask: Anthropic) -> None:
    data = base64.b64encode(png("start", 64, 64)).decode()
    image = {"type": "base64", "media_type": "image/png", "data": data}
    blocks = [{"type": "image", "source": image}, {"type": "text", "text": "what"}]
    prompt: Any = [{"role": "user", "content": blocks}]

    message = ask.messages.create(model="scripted-echo", max_tokens=50, messages=prompt)

    assert message.content[0].to_dict()["text"] == "what [images: 1]"


def test_a_stop_sequence_is_named(ask: Anthropic) -> None:
    for backend in ("vllm", "scripted"):
        message = ask.messages.create(
            model="scripted-story:style=vllm", max_tokens=50, messages=HELLO,
            stop_sequences=["nothing", " scripted"], extra_body={"backend": backend},
        )  # fmt: skip

        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " scripted")
        assert message.content[0].to_dict()["text"] == "This is the"


def test_max_tokens_ends_a_message_and_none_only_reads_the_prompt(at: Fleet) -> None:
    cut = streamed(at, model="scripted-story", max_tokens=3)
    read = streamed(at, model="scripted-story", max_tokens=0)

    assert (cut.ending["stop_reason"], cut.usage["output_tokens"]) == ("max_tokens", 3)
    assert (read.ending["stop_reason"], read.usage["output_tokens"]) == ("max_tokens", 0)
    assert (read.blocks, read.usage["input_tokens"]) == ([], 2)


@pytest.mark.feature("streams")
def test_a_client_that_waits_gets_pings_after_message_start(at: Fleet) -> None:
    late = streamed(at, model=LATE, backend="scripted")

    assert late.pings >= 1
    assert late.text == "This is"


@pytest.mark.feature("streams")
def test_a_waiting_job_tells_its_position_in_comments(at: Fleet) -> None:
    told = streamed(at, model="scripted-story:fail=busy,times=1", backend="scripted")

    assert told.pings >= 1
    assert any("the next attempt is due" in comment for comment in told.comments)
    assert json.loads(told.comments[0].removeprefix("queued "))["position"] is None


@pytest.mark.feature("errors")
def test_errors_have_anthropics_types_and_statuses(ask: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask.messages.create(model="nobody", max_tokens=9, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError) as wrong:
        ask.messages.create(model="scripted-echo", max_tokens=-1, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match="exceeds the available context"):
        ask.messages.create(model=LONG, max_tokens=9, messages=HELLO)

    assert missing.value.type == "not_found_error"
    assert wrong.value.type == "invalid_request_error"
    assert "max_tokens" in str(wrong.value.api_message)
    assert all(each.value.request_id for each in (missing, wrong))


@pytest.mark.feature("errors", "streams")
def test_a_failure_in_the_stream_is_an_error_event(ask: Anthropic, at: Fleet) -> None:
    told = streamed(at, model=BROKEN, backend="scripted")
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        ask.messages.stream(model=BROKEN, max_tokens=99, messages=HELLO) as stream,
    ):
        stream.until_done()

    assert told.error
    assert told.error["type"] == "api_error"
    assert caught.value.type == "api_error"


@pytest.mark.feature("errors", "streams")
def test_an_attempt_that_starts_over_ends_a_stream_with_blocks(at: Fleet) -> None:
    told = streamed(at, model=AGAIN, backend="scripted", tools=[LOOK])

    assert [block["type"] for block in told.blocks] == ["tool_use"]
    assert told.error
    assert (told.error["type"], told.error["code"]) == ("api_error", "answer_restarted")


@pytest.mark.feature("cancel")
def test_a_client_that_leaves_cancels_its_job(ask: Anthropic, at: Fleet) -> None:
    with ask.messages.stream(model=SLOW, max_tokens=999, messages=HELLO) as stream:
        next(iter(stream.text_stream))
        job = stream.current_message_snapshot.id.removeprefix("msg_")

    assert wait_until(lambda: at.job(job)["status"] == "cancelled")


@pytest.mark.feature("resume")
def test_a_stream_is_resumed_after_the_last_event(at: Fleet) -> None:
    body = {"model": SLOW, "max_tokens": 30, "messages": HELLO, "stream": True}
    stay = {**HEADERS, "X-Fleet-On-Disconnect": "continue"}
    first = b""
    with httpx.stream("POST", f"{at.url}/v1/messages", json=body, headers=stay) as answer:
        job = answer.headers["x-fleet-job"]
        for piece in answer.iter_raw():
            first += piece
            if first.count(b"id: ") >= 4:
                break
    first = first[: first.rindex(b"\n\n") + 2]
    before = checked(first, cut=True)
    url = f"{at.url}/v1/messages/msg_{job}"

    rest = httpx.get(
        url, params={"stream": "true"}, headers={**HEADERS, "Last-Event-ID": before.ids[-1]}
    )
    whole = checked(first + rest.content)
    again = httpx.get(url, params={"stream": "true", "after": whole.ids[-1]}, headers=HEADERS)

    assert checked(rest.content, resumed=True).ids[0] > before.ids[-1]
    assert whole.text == httpx.get(url, headers=HEADERS).json()["content"][0]["text"]
    assert whole.usage["output_tokens"] == 30
    assert again.status_code == 204


def test_a_key_repeats_the_same_message(at: Fleet) -> None:
    body = {"model": "scripted-echo", "max_tokens": 9, "messages": HELLO}
    keyed = {**HEADERS, "Idempotency-Key": "message-1"}

    first, second = (
        httpx.post(f"{at.url}/v1/messages", json=body, headers=keyed) for _ in range(2)
    )
    streams = streamed(at, headers=keyed, **body)
    other = httpx.post(f"{at.url}/v1/messages", json={**body, "max_tokens": 8}, headers=keyed)

    assert first.json() == second.json()
    assert streams.text == "hello you"
    assert (other.status_code, other.json()["type"]) == (409, "error")


def test_what_has_no_effect_is_named(at: Fleet) -> None:
    body = {
        "model": "scripted-tools",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"a": 1}}]}
        ],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}, LOOK],
        "container": "c",
    }
    betas = {"anthropic-beta": "effort-2025-11-24, novel-1", **HEADERS}

    answer = httpx.post(f"{at.url}/v1/messages", json=body, headers=betas)

    named = set(answer.headers["x-fleet-ignored"].split(", "))
    assert named == {
        "container",
        "messages[].content[].cache_control",
        "tools[web_search_20250305]",
        "anthropic-beta[novel-1]",
    }


@pytest.mark.feature("thinking")
def test_effort_is_left_out_for_a_model_that_cannot_think(ask: Anthropic) -> None:
    adaptive: Any = {"type": "adaptive"}
    for model in ("scripted-echo", "scripted-think"):
        message = ask.messages.create(
            model=model, max_tokens=99, messages=HELLO, thinking=adaptive,
            output_config={"effort": "high"}, extra_body={"backend": "scripted"},
        )  # fmt: skip

        assert message.stop_reason == "end_turn"


@pytest.mark.feature("models")
def test_models_are_listed_in_anthropics_shape_for_its_clients(ask: Anthropic, at: Fleet) -> None:
    first = ask.models.list(limit=3)
    names = [model.id for model in ask.models.list(limit=3)]
    one = ask.models.retrieve("scripted-echo")
    back = ask.models.list(limit=2, before_id=names[3])

    assert (first.has_more, len(first.data)) == (True, 3)
    assert names == [each["id"] for each in httpx.get(f"{at.url}/v1/models").json()["data"]]
    assert (one.type, one.display_name, one.max_input_tokens) == ("model", "scripted-echo", 8192)
    assert [model.id for model in back.data] == names[1:3]
    with pytest.raises(anthropic.NotFoundError):
        ask.models.retrieve("nobody")


@pytest.mark.feature("tokens")
def test_tokens_are_counted_by_the_backend_or_estimated(ask: Anthropic, at: Fleet) -> None:
    def count(backend: str, model: str, prompt: Any = HELLO) -> tuple[int, str | None]:
        body = {"model": model, "messages": prompt, "system": "Be brief.", "backend": backend}
        answer = httpx.post(f"{at.url}/v1/messages/count_tokens", json=body, headers=HEADERS)
        return answer.json()["input_tokens"], answer.headers.get("x-fleet-estimated")

    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgoAAAAN"}
    picture = [{"role": "user", "content": [{"type": "image", "source": image}]}]
    told = ask.messages.count_tokens(model="scripted-echo", messages=HELLO)
    estimate = count("scripted", LONG)

    assert told.input_tokens == 2
    assert count("vllm", "scripted-echo") == count("scripted", "scripted-echo") == (4, None)
    assert count("vllm", "scripted-echo", picture) == (502, "input_tokens")
    assert (estimate[0] >= 4, estimate[1]) == (True, "input_tokens")
    with pytest.raises(anthropic.NotFoundError):
        ask.messages.count_tokens(model="nobody", messages=HELLO)


@pytest.mark.feature("errors")
def test_a_path_that_does_not_exist_is_an_error_of_anthropics(at: Fleet) -> None:
    answer = httpx.get(f"{at.url}/v1/complete", headers=HEADERS)
    plain = httpx.get(f"{at.url}/v1/messages/msg_{'0' * 32}")

    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert answer.headers["request-id"] == answer.json()["request_id"]
    assert (plain.status_code, plain.json()["type"]) == (404, "error")
