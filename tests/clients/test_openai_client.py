"""The `openai` client, current and unmodified, over a server of OpenAI's shape and over scripts."""

import asyncio
import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from support.fleet import Fleet, fleet
from support.images import size_of
from support.up import wait_until

from workers.scripted.picture import png

pytestmark = pytest.mark.client("openai")

SLOW = "scripted-story:chunks=400,rate=20"
LATE = "scripted-story:chunks=2,first=2.5"
BROKEN = "scripted-story:fail=error:3"
LONG = "scripted-story:fail=context"
TWO_CALLS = "scripted-tools:calls=2"
SLASHED = "scripted-story:chunks=1,style=vllm"
MODELS = (SLOW, LATE, BROKEN, LONG, TWO_CALLS)
HELLO: Any = [{"role": "user", "content": "hello you"}]
HERE = {"extra_body": {"backend": "scripted"}}
TOOL: Any = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
}
PICTURE = png("start", 64, 64)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("openai")
    with fleet(folder, "openai", "scripted", models=MODELS, keepalive_s=1) as running:
        yield running


@pytest.fixture
def ask(at: Fleet) -> Iterator[OpenAI]:
    """A client that does not try again: a test must see what the first answer was."""
    with OpenAI(base_url=f"{at.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.mark.feature("chat")
def test_a_chat_is_answered(ask: OpenAI) -> None:
    answer = ask.chat.completions.create(
        model="scripted-echo", messages=HELLO, service_tier="priority", max_completion_tokens=50
    )
    (choice,) = answer.choices

    assert (choice.message.role, choice.message.content) == ("assistant", "hello you")
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 2
    assert (answer.object, answer.model) == ("chat.completion", "scripted-echo")
    assert answer.service_tier == "priority"
    assert abs(answer.created - time.time()) < 60


@pytest.mark.feature("chat")
async def test_chats_are_answered_at_once(at: Fleet) -> None:
    async with AsyncOpenAI(base_url=f"{at.url}/v1", api_key="unused") as ask:
        answers = await asyncio.gather(
            *(
                ask.chat.completions.create(
                    model="scripted-echo", messages=[{"role": "user", "content": f"n {n}"}]
                )
                for n in range(8)
            )
        )

        assert [a.choices[0].message.content for a in answers] == [f"n {n}" for n in range(8)]


@pytest.mark.feature("streams")
def test_a_chat_streams_with_its_usage(ask: OpenAI) -> None:
    stream = ask.chat.completions.create(
        model="scripted-echo",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    *told, last = chunks

    assert "".join(c.choices[0].delta.content or "" for c in told) == "hello you"
    assert told[0].choices[0].delta.role == "assistant"
    assert told[-1].choices[0].finish_reason == "stop"
    assert {c.usage for c in told} == {None}
    assert not last.choices
    assert last.usage
    assert last.usage.completion_tokens == 2
    assert len({c.id for c in chunks}) == 1


@pytest.mark.feature("streams")
async def test_an_asynchronous_chat_streams(at: Fleet) -> None:
    async with AsyncOpenAI(base_url=f"{at.url}/v1", api_key="unused") as ask:
        stream = await ask.chat.completions.create(
            model="scripted-echo", messages=HELLO, stream=True
        )
        words = [chunk.choices[0].delta.content or "" async for chunk in stream]

        assert "".join(words) == "hello you"


@pytest.mark.feature("thinking")
def test_thoughts_stand_beside_the_answer(ask: OpenAI) -> None:
    answer = ask.chat.completions.create(
        model="scripted-think", messages=HELLO, reasoning_effort="low"
    )
    stream = ask.chat.completions.create(model="scripted-think", messages=HELLO, stream=True)
    thoughts = [getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in stream]

    assert getattr(answer.choices[0].message, "reasoning_content", "") == "".join(thoughts)
    assert "".join(thoughts).strip()


@pytest.mark.parametrize("backend", ["openai", "scripted"])
@pytest.mark.feature("tools")
def test_tools_are_called_in_parallel_and_their_results_taken(backend: str, ask: OpenAI) -> None:
    here = {"extra_body": {"backend": backend}}
    answer = ask.chat.completions.create(
        model=TWO_CALLS, messages=HELLO, tools=[TOOL], parallel_tool_calls=True, **here
    )
    message = answer.choices[0].message
    calls: Any = message.tool_calls
    results: Any = [
        {"role": "tool", "tool_call_id": call.id, "content": "nothing"} for call in calls
    ]
    again = ask.chat.completions.create(
        model="scripted-echo", messages=[*HELLO, message, *results], **here
    )

    assert (answer.choices[0].finish_reason, message.content) == ("tool_calls", None)
    assert [call.function.name for call in calls] == ["look", "look"]
    assert len({call.id for call in calls}) == 2
    assert again.choices[0].message.content == "hello you"


@pytest.mark.feature("tools", "streams")
def test_the_helper_for_streams_puts_calls_together(ask: OpenAI) -> None:
    with ask.chat.completions.stream(model=TWO_CALLS, messages=HELLO, tools=[TOOL]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls

    assert [call.function.name for call in calls] == ["look", "look"]
    assert '"query":"hello you"' in calls[0].function.arguments


class Place(BaseModel):
    city: Literal["Graz"]


@pytest.mark.feature("schema")
def test_an_answer_is_parsed_into_a_model(ask: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": '{"city":"Graz"}'}]
    answer = ask.chat.completions.parse(
        model="scripted-echo", messages=messages, response_format=Place
    )

    assert answer.choices[0].message.parsed == Place(city="Graz")


@pytest.mark.feature("vision")
def test_images_are_seen(ask: OpenAI) -> None:
    url = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    messages: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        }
    ]
    answer = ask.chat.completions.create(model="scripted-echo", messages=messages)

    assert answer.choices[0].message.content == "look [images: 1]"


def test_likelihoods_are_told_where_the_backend_has_them(ask: OpenAI) -> None:
    asked: Any = {"model": "scripted-echo", "messages": HELLO, "logprobs": True, **HERE}
    answer = ask.chat.completions.create(top_logprobs=1, **asked)
    stream = ask.chat.completions.create(stream=True, **asked)
    told = [c.choices[0].logprobs for c in stream if c.choices[0].logprobs]
    likely = answer.choices[0].logprobs

    assert likely
    assert likely.content
    assert [each.token for each in likely.content] == ["hello", " you"]
    assert likely.content[0].top_logprobs[0].logprob == -0.5
    assert [(each.content or [])[0].token for each in told] == ["hello", " you"]


@pytest.mark.parametrize("backend", ["openai", "scripted"])
def test_raw_text_is_continued(backend: str, ask: OpenAI) -> None:
    here = {"extra_body": {"backend": backend}}
    answer = ask.completions.create(
        model="scripted-echo", prompt="one two", echo=True, max_tokens=9, **here
    )
    stream = ask.completions.create(
        model="scripted-echo", prompt="one two three", stream=True, max_tokens=2, logprobs=1, **here
    )
    chunks = list(stream)
    likely = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]

    assert answer.choices[0].text == "one twoone two"
    assert answer.object == "text_completion"
    assert "".join(c.choices[0].text for c in chunks) == "one two"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert [each.text_offset for each in likely] == [[0], [3]]
    assert likely[0].token_logprobs == [-0.5]


@pytest.mark.parametrize("encoding", ["float", "base64", None])
@pytest.mark.feature("embeddings")
def test_texts_become_vectors(encoding: Any, ask: OpenAI) -> None:
    given = {} if encoding is None else {"encoding_format": encoding}
    answer = ask.embeddings.create(
        model="scripted-embed", input=["one", "two", "one"], dimensions=8, **given
    )
    one, two, again = (row.embedding for row in answer.data)
    if encoding == "base64":
        assert isinstance(one, str)
        assert len(base64.b64decode(one)) == 32
    else:
        assert len(one) == 8
    assert one == again != two
    assert [row.index for row in answer.data] == [0, 1, 2]
    # A text that comes twice may be read once.
    assert answer.usage.prompt_tokens in {2, 3}


@pytest.mark.feature("embeddings")
def test_two_thousand_texts_are_one_request(ask: OpenAI) -> None:
    texts = [f"text {n}" for n in range(2048)]
    answer = ask.embeddings.create(model="scripted-embed", input=texts)
    single = ask.embeddings.create(model="scripted-embed", input="text 2047")

    assert len(answer.data) == 2048
    assert answer.data[-1].embedding == single.data[0].embedding
    with pytest.raises(openai.BadRequestError, match="2048"):
        ask.embeddings.create(model="scripted-embed", input=[*texts, "too many"])


@pytest.mark.feature("embeddings")
def test_ids_of_tokens_go_where_they_are_taken(ask: OpenAI) -> None:
    answer = ask.embeddings.create(model="scripted-embed", input=[[1, 2], [3]], **HERE)
    words = ask.embeddings.create(model="scripted-embed", input=["1 2", "3"], **HERE)

    assert [row.embedding for row in answer.data] == [row.embedding for row in words.data]


@pytest.mark.feature("images")
def test_an_image_is_made_and_edited(ask: OpenAI) -> None:
    asked: Any = {"model": "scripted-image", "prompt": "a lighthouse", "size": "64x64"}
    made = ask.images.generate(n=2, **asked)
    edited = ask.images.edit(image=("start.png", PICTURE, "image/png"), **asked)
    images = [base64.b64decode(each.b64_json or "") for each in (*made.data, *edited.data)]

    assert [size_of(image) for image in images] == [(64, 64)] * 3
    assert len(set(images)) == 3
    assert (made.size, made.output_format) == ("64x64", "png")


@pytest.mark.feature("images", "streams")
def test_previews_of_an_image_are_streamed(ask: OpenAI) -> None:
    asked: Any = {"model": "scripted-image", "prompt": "a lighthouse", "size": "64x64", **HERE}
    made = list(ask.images.generate(stream=True, partial_images=2, **asked))
    edited = list(ask.images.edit(image=PICTURE, stream=True, partial_images=1, **asked))

    assert [event.type for event in made] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [getattr(event, "partial_image_index", None) for event in made] == [0, 1, None]
    assert [event.type for event in edited] == ["image_edit.partial_image", "image_edit.completed"]
    assert size_of(base64.b64decode(made[-1].b64_json)) == (64, 64)


@pytest.mark.feature("models")
def test_models_are_listed_and_looked_up(ask: OpenAI) -> None:
    names = [model.id for model in ask.models.list()]
    model = ask.models.retrieve(SLOW)

    assert {"scripted-echo", SLOW} <= set(names)
    assert (model.id, model.object, model.owned_by) == (SLOW, "model", "openai")
    with pytest.raises(openai.NotFoundError) as caught:
        ask.models.retrieve("org/absent")
    assert caught.value.code == "model_not_found"
    assert "org/absent" in caught.value.message


@pytest.mark.feature("errors")
def test_errors_are_the_client_s_own(ask: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask.chat.completions.create(model="nobody-has-it", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as several:
        ask.chat.completions.create(model="scripted-echo", messages=HELLO, n=2)
    with pytest.raises(openai.BadRequestError) as long:
        ask.chat.completions.create(model=LONG, messages=HELLO)
    with pytest.raises(openai.BadRequestError) as hot:
        ask.chat.completions.create(model="scripted-echo", messages=HELLO, temperature=99)

    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert (several.value.code, several.value.param) == ("not_supported", "n")
    assert (long.value.code, long.value.type) == (
        "context_length_exceeded",
        "invalid_request_error",
    )
    assert hot.value.param == "temperature"
    assert unknown.value.request_id


@pytest.mark.feature("errors", "streams")
def test_what_fails_before_the_first_word_is_a_status_of_a_stream_too(ask: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask.chat.completions.create(model=LONG, messages=HELLO, stream=True)

    assert caught.value.code == "context_length_exceeded"
    assert caught.value.response.headers["x-fleet-job"]


@pytest.mark.feature("errors", "streams")
def test_what_fails_after_words_raises_in_the_stream(ask: OpenAI) -> None:
    heard: list[str] = []
    with pytest.raises(openai.APIError) as caught:  # noqa: PT012 - it raises between two words
        for chunk in ask.chat.completions.create(model=BROKEN, messages=HELLO, stream=True, **HERE):
            heard += [choice.delta.content or "" for choice in chunk.choices]

    assert "".join(heard)
    assert caught.value.code


@pytest.mark.feature("streams")
def test_a_stream_that_waits_says_so_and_goes_on(at: Fleet) -> None:
    body = {"model": LATE, "messages": HELLO, "stream": True, "backend": "scripted"}
    with httpx.stream("POST", f"{at.url}/v1/chat/completions", json=body, timeout=20) as response:
        lines = list(response.iter_lines())

    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[0] == ": keep-alive"
    assert lines[-2] == "data: [DONE]"
    assert not [line for line in lines if line.startswith("id:")]


@pytest.mark.feature("cancel")
def test_who_hangs_up_ends_the_job_and_the_backend_s_work(at: Fleet, ask: OpenAI) -> None:
    before = at.seen()["aborted"]
    here = {"extra_body": {"backend": "openai"}}
    stream = ask.chat.completions.create(model=SLOW, messages=HELLO, stream=True, **here)
    next(iter(stream))
    job = stream.response.headers["x-fleet-job"]
    stream.close()
    wait_until(lambda: at.job(job)["status"] == "cancelled")
    wait_until(lambda: at.seen()["aborted"] == before + 1)

    assert at.job(job)["result"]["cancelled"]["by"] == "disconnect"


def test_who_wants_the_job_to_go_on_says_so(at: Fleet, ask: OpenAI) -> None:
    headers = {"X-Fleet-On-Disconnect": "continue", "X-Fleet-Priority": "batch"}
    model = "scripted-story:chunks=30,rate=20"
    stream = ask.chat.completions.create(
        model=model, messages=HELLO, stream=True, extra_headers=headers, **HERE
    )
    next(iter(stream))
    job = stream.response.headers["x-fleet-job"]
    stream.close()
    wait_until(lambda: at.job(job)["status"] == "done")

    assert at.job(job)["priority"] == "batch"


def test_a_request_that_is_sent_twice_is_one_job(ask: OpenAI) -> None:
    headers = {"Idempotency-Key": "once"}
    answers = [
        ask.chat.completions.create(model="scripted-echo", messages=HELLO, extra_headers=headers)
        for _ in range(2)
    ]

    assert answers[0].id == answers[1].id
    with pytest.raises(openai.ConflictError) as caught:
        ask.chat.completions.create(model="scripted-story", messages=HELLO, extra_headers=headers)
    assert caught.value.code == "idempotency_key_reused"


def test_fields_that_nobody_knows_are_taken(ask: OpenAI) -> None:
    extra = {"extra_body": {"frobnicate": True, "mirostat": 2}}
    answer = ask.chat.completions.create(
        model="scripted-echo", messages=HELLO, store=False, verbosity="low", user="u", **extra
    )

    assert answer.choices[0].message.content == "hello you"
