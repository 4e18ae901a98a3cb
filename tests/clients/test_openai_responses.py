"""The `openai` client's responses, current and unmodified: asked, streamed, parsed, refused."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel
from support.fleet import Fleet, fleet

from workers.scripted.picture import png

pytestmark = pytest.mark.client("openai")

SLOW = "scripted-story:chunks=400,rate=20"
SHORT = "scripted-story:chunks=30,rate=20"
BROKEN = "scripted-story:fail=error:3"
LONG = "scripted-story:fail=context"
TWO_CALLS = "scripted-tools:calls=2"
MODELS = (SLOW, SHORT, BROKEN, LONG, TWO_CALLS)
LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": None}
BACKENDS = pytest.mark.parametrize("backend", ["openai", "scripted"])


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


def here(backend: str) -> Any:
    return {"extra_body": {"backend": backend}}


def text(events: list[ResponseStreamEvent]) -> str:
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


@BACKENDS
@pytest.mark.feature("responses")
def test_a_question_is_answered(backend: str, ask: OpenAI) -> None:
    answer = ask.responses.create(
        model="scripted-echo", input="hello you", instructions="Be brief.", **here(backend),
        service_tier="priority", metadata={"a": "b"}, max_output_tokens=50, temperature=0.5,
    )  # fmt: skip

    assert (answer.output_text, answer.status) == ("hello you", "completed")
    assert (answer.instructions, answer.metadata) == ("Be brief.", {"a": "b"})
    assert (answer.service_tier, answer.temperature) == ("priority", 0.5)
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert ask.responses.retrieve(answer.id) == answer


@BACKENDS
@pytest.mark.feature("responses", "streams")
async def test_an_asynchronous_answer_streams(backend: str, at: Fleet) -> None:
    async with AsyncOpenAI(base_url=f"{at.url}/v1", api_key="unused") as ask:
        stream = await ask.responses.create(
            model="scripted-echo", input="hello you", stream=True, **here(backend)
        )
        events = [event async for event in stream]

        assert text(events) == "hello you"
        assert [event.sequence_number for event in events] == list(range(len(events)))


@pytest.mark.feature("responses", "streams")
def test_the_helper_for_streams_puts_an_answer_together(ask: OpenAI) -> None:
    tools = [LOOK]
    with ask.responses.stream(model=TWO_CALLS, input="hello you", tools=tools) as stream:
        for _ in stream:
            pass
        calls = stream.get_final_response().output

    assert [getattr(call, "name", None) for call in calls] == ["look", "look"]
    assert '"query":"hello you"' in getattr(calls[0], "arguments", "")


class Place(BaseModel):
    city: Literal["Graz"]


@pytest.mark.feature("responses", "schema")
def test_an_answer_is_parsed_into_a_model(ask: OpenAI) -> None:
    asked: Any = {"model": "scripted-echo", "input": '{"city":"Graz"}', "text_format": Place}
    with ask.responses.stream(**asked) as stream:
        streamed = stream.get_final_response()

    assert ask.responses.parse(**asked).output_parsed == Place(city="Graz")
    assert streamed.output_parsed == Place(city="Graz")


@pytest.mark.parametrize("summary", [None, "auto"])
@pytest.mark.feature("responses", "thinking")
def test_thoughts_are_told_where_clients_look_for_them(summary: Any, ask: OpenAI) -> None:
    events = list(
        ask.responses.create(
            model="scripted-think", input="hello", stream=True, reasoning={"summary": summary}
        )
    )
    kind = "reasoning_summary_text" if summary else "reasoning_text"
    thoughts = [getattr(e, "delta", "") for e in events if e.type == f"response.{kind}.delta"]
    last: Any = events[-1]
    item = last.response.output[0]
    (part,) = item.summary if summary else item.content

    assert part.text == "".join(thoughts)
    assert part.text.strip()
    assert [each.type for each in last.response.output] == ["reasoning", "message"]


@pytest.mark.feature("responses", "vision")
def test_images_are_seen(ask: OpenAI) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png('start', 64, 64)).decode()}"
    parts: Any = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": url, "detail": "auto"},
    ]
    answer = ask.responses.create(model="scripted-echo", input=[{"role": "user", "content": parts}])

    assert answer.output_text == "look [images: 1]"


@BACKENDS
@pytest.mark.feature("responses", "tools")
def test_tools_are_called_and_their_results_taken(backend: str, ask: OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "hello you"}]
    answer = ask.responses.create(model=TWO_CALLS, input=asked, tools=[LOOK], **here(backend))
    results = [
        {"type": "function_call_output", "call_id": getattr(call, "call_id", ""), "output": "no"}
        for call in answer.output
    ]
    again = ask.responses.create(
        model="scripted-echo", input=[*asked, *answer.output, *results], **here(backend)
    )
    after = ask.responses.create(
        model="scripted-echo", input=results, previous_response_id=answer.id, **here(backend)
    )
    items = list(ask.responses.input_items.list(after.id, order="asc", limit=2))

    assert again.output_text == after.output_text == "hello you"
    assert after.previous_response_id == answer.id
    assert [item.type for item in items] == [
        "message", "function_call", "function_call", "function_call_output",
        "function_call_output",
    ]  # fmt: skip
    assert getattr(items[1], "call_id", 0) == getattr(items[3], "call_id", 1)


def test_likelihoods_are_told_where_the_backend_has_them(ask: OpenAI) -> None:
    answer: Any = ask.responses.create(
        model="scripted-echo", input="hello you", include=["message.output_text.logprobs"],
        top_logprobs=1, **here("scripted"),
    )  # fmt: skip
    told = answer.output[0].content[0].logprobs

    assert [each.token for each in told] == ["hello", " you"]
    assert told[0].top_logprobs[0].logprob == -0.5


def test_too_many_words_make_an_answer_incomplete(ask: OpenAI) -> None:
    asked: Any = {"model": "scripted-story", "input": "hello", "max_output_tokens": 3}
    answer = ask.responses.create(**asked)
    *_, last = ask.responses.create(stream=True, **asked)

    assert answer.status == "incomplete"
    assert answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert last.type == "response.incomplete"
    assert last.response.output_text == answer.output_text


@pytest.mark.feature("responses", "errors")
def test_errors_are_the_client_s_own(ask: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask.responses.create(model="nobody-has-it", input="hello")
    with pytest.raises(openai.BadRequestError) as hosted:
        ask.responses.create(
            model="scripted-echo",
            input="hello",
            tools=[{"type": "web_search"}],
            tool_choice={"type": "web_search_preview"},
        )
    with pytest.raises(openai.BadRequestError) as long:
        ask.responses.create(model=LONG, input="hello")

    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert (hosted.value.code, hosted.value.param) == ("not_supported", "tool_choice")
    assert long.value.code == "context_length_exceeded"


@pytest.mark.feature("responses", "errors")
def test_what_fails_in_a_stream_is_the_last_event(ask: OpenAI) -> None:
    *_, last = ask.responses.create(model=LONG, input="hello", stream=True)

    assert last.type == "response.failed"
    assert last.response.error
    assert str(last.response.error.code) == "context_length_exceeded"


@pytest.mark.feature("responses", "errors")
def test_words_that_are_taken_back_raise_in_the_stream(ask: OpenAI) -> None:
    stream = ask.responses.create(model=BROKEN, input="hello", stream=True, **here("openai"))
    with pytest.raises(openai.APIError) as caught:
        list(stream)

    assert caught.value.code == "answer_restarted"


def test_fields_that_nobody_knows_are_taken(ask: OpenAI) -> None:
    extra = {"frobnicate": True}
    answer = ask.responses.create(
        model="scripted-echo", input="hello", prompt_cache_key="k", extra_body=extra
    )

    assert answer.prompt_cache_key == "k"


@pytest.mark.feature("tokens")
def test_input_tokens_are_counted_by_the_backend_or_estimated(ask: OpenAI) -> None:
    def count(backend: str, model: str = "scripted-echo", **more: Any) -> tuple[int, str | None]:
        told = ask.responses.input_tokens.with_raw_response.count(
            model=model, instructions="Be brief.", **{"input": "hello you"} | more, **here(backend)
        )
        counted = told.parse()
        assert counted.object == "response.input_tokens"
        return counted.input_tokens, told.headers.get("x-fleet-estimated")

    before = ask.responses.create(model="scripted-echo", input="one two three", **here("scripted"))
    url = f"data:image/png;base64,{base64.b64encode(png('start', 64, 64)).decode()}"
    picture = {"type": "input_image", "image_url": url, "detail": "auto"}
    seen = [{"role": "user", "content": [{"type": "input_text", "text": "hello you"}, picture]}]

    assert count("scripted") == (4, None)
    assert count("scripted", previous_response_id=before.id) == (10, None)
    assert count("scripted", input=seen) == (504, "input_tokens")
    for tokens, how in (count("scripted", LONG), count("openai")):
        assert (tokens >= 4, how) == (True, "input_tokens")


@pytest.mark.feature("tokens", "errors")
def test_an_input_that_cannot_be_counted_is_refused_or_named(ask: OpenAI) -> None:
    count = ask.responses.input_tokens.with_raw_response.count
    told = count(
        model="scripted-echo", input="hello", tools=[LOOK, {"type": "web_search"}],
        personality="friendly", truncation="auto", **here("scripted"),
    )  # fmt: skip

    ignored = told.headers["x-fleet-ignored"]
    assert all(each in ignored for each in ("personality", "truncation", "web_search")), ignored
    with pytest.raises(openai.NotFoundError):
        count(model="nobody", input="hello")
    with pytest.raises(openai.BadRequestError, match="conversation"):
        count(model="scripted-echo", input="hello", conversation="conv_1")
    with pytest.raises(openai.BadRequestError, match="input: required"):
        count(model="scripted-echo", instructions="Be brief.")
