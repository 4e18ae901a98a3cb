"""Every method of the `ollama` client, over an Ollama and over a server that speaks otherwise."""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from ollama import ResponseError
from support.fleet import Fleet, fleet
from support.up import wait_until

pytestmark = pytest.mark.client("ollama")

SLOW = "scripted-story:chunks=400,rate=20"
BROKEN = "scripted-story:fail=error:3,usage=none"
BUSY = "scripted-story:fail=context"
MANY_CALLS = "scripted-tools:calls=2"
MODELS = (SLOW, BROKEN, BUSY, MANY_CALLS)
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(64)
HELLO = [{"role": "user", "content": "hello you"}]
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
}


@pytest.fixture(scope="module", params=["ollama", "vllm"])
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    with fleet(folder, request.param, models=MODELS, keepalive_s=1) as running:
        yield running


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet whose one backend is an Ollama."""
    with fleet(tmp_path_factory.mktemp("box"), "ollama") as running:
        yield running


class Sync:
    """Asks through the blocking client."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        with ollama.Client(self._url) as client:
            answer = getattr(client, method)(*args, **options)
            return list(answer) if options.get("stream") else answer


class Async:
    """Asks through the other one."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        return asyncio.run(self._ask(method, *args, **options))

    async def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        async with ollama.AsyncClient(self._url) as client:
            answer = await getattr(client, method)(*args, **options)
            return [part async for part in answer] if options.get("stream") else answer


Ask = Sync | Async


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest, at: Fleet) -> Ask:
    made: Ask = request.param(at.url)
    return made


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def ask_box(request: pytest.FixtureRequest, box: Fleet) -> Ask:
    made: Ask = request.param(box.url)
    return made


def refused(ask: Ask, *args: Any, **options: Any) -> ResponseError:
    with pytest.raises(ResponseError) as caught:
        ask(*args, **options)
    assert isinstance(caught.value.error, str)
    return caught.value


@pytest.mark.feature("chat")
def test_a_chat_is_answered_and_measured(ask: Ask) -> None:
    answer = ask("chat", "scripted-echo", HELLO)

    assert (answer.message.role, answer.message.content) == ("assistant", "hello you")
    assert (answer.model, answer.done, answer.done_reason) == ("scripted-echo", True, "stop")
    assert answer.eval_count == 2
    assert answer.total_duration > answer.eval_duration > 0


@pytest.mark.feature("streams")
def test_a_streamed_chat_ends_with_its_measure(ask: Ask) -> None:
    *parts, last = ask("chat", "scripted-echo", HELLO, stream=True)

    assert "".join(part.message.content for part in parts) == "hello you"
    assert not any(part.done for part in parts)
    assert (last.done, last.done_reason, last.message.content) == (True, "stop", "")
    assert last.eval_count == 2


@pytest.mark.feature("thinking")
def test_a_model_that_thinks_tells_its_thoughts_apart(ask: Ask) -> None:
    whole = ask("chat", "scripted-think", HELLO, think=True).message
    parts = [part.message for part in ask("chat", "scripted-think", HELLO, think=True, stream=True)]

    assert whole.thinking
    assert whole.thinking == "".join(part.thinking or "" for part in parts)
    assert whole.content == "".join(part.content for part in parts)


@pytest.mark.feature("tools")
def test_tools_are_called_with_objects_and_their_answers_find_their_calls(ask: Ask) -> None:
    asked = ask("chat", MANY_CALLS, HELLO, tools=[TOOL])
    streamed = ask("chat", MANY_CALLS, HELLO, tools=[TOOL], stream=True)
    calls = asked.message.tool_calls
    told = [{"role": "tool", "content": "a cat", "tool_name": "look"} for _ in calls]
    after = ask("chat", "scripted-echo", [*HELLO, asked.message, *told])

    assert [call.function.name for call in calls] == ["look", "look"]
    assert all(isinstance(call.function.arguments, dict) for call in calls)
    assert calls == [call for part in streamed for call in part.message.tool_calls or ()]
    assert after.message.content == "hello you"


@pytest.mark.feature("vision")
def test_images_are_seen(ask: Ask) -> None:
    picture = base64.b64encode(PIXEL).decode()
    chat = ask("chat", "scripted-echo", [{**HELLO[0], "images": [picture]}])
    text = ask("generate", "scripted-echo", "hello you", images=[picture])

    assert "1" in chat.message.content
    assert chat.message.content == text.response


@pytest.mark.feature("schema")
def test_options_and_formats_are_understood(ask: Ask) -> None:
    options = {"num_predict": 3, "temperature": 0.5, "top_k": 40, "seed": 7, "stop": ["zzz"]}
    cut = ask("chat", "scripted-story", HELLO, options={**options, "num_ctx": 4096, "mirostat": 1})
    free = ask("chat", "scripted-echo", HELLO, options={"num_predict": -1}, keep_alive="5m")
    json = ask("chat", "scripted-echo", HELLO, format="json", keep_alive=-1)
    schema = ask("chat", "scripted-echo", HELLO, format={"type": "object"})

    assert (cut.done_reason, cut.eval_count) == ("length", 3)
    assert {each.done_reason for each in (free, json, schema)} == {"stop"}


@pytest.mark.feature("chat")
def test_a_prompt_is_completed(ask: Ask) -> None:
    whole = ask("generate", "scripted-echo", "hello you", system="Be brief.")
    *parts, last = ask("generate", "scripted-echo", "hello you", stream=True)

    assert whole.response == "".join(part.response for part in parts) == "hello you"
    assert (whole.done_reason, last.done_reason, last.done) == ("stop", "stop", True)


def test_raw_text_is_gone_on_from(ask: Ask) -> None:
    whole = ask("generate", "scripted-echo", "hello you", raw=True)
    *parts, last = ask("generate", "scripted-echo", "hello you", raw=True, stream=True)

    assert whole.response == "".join(part.response for part in parts) == "hello you"
    assert last.done_reason == "stop"


def test_a_gap_is_filled_where_the_backend_can(ask: Ask, at: Fleet) -> None:
    if at.backends == ("ollama",):
        assert ask("generate", "scripted-echo", "hello you", suffix="end").response == "hello you"
    else:
        error = refused(ask, "generate", "scripted-echo", "hello you", suffix="end")
        assert (error.status_code, "suffix" in error.error) == (400, True)


def test_likelihoods_are_told_where_they_are_known(ask: Ask) -> None:
    answer = ask("generate", "scripted-echo", "hello you", raw=True, logprobs=True, top_logprobs=1)

    assert answer.response == "hello you"
    assert all(each.logprob <= 0 for each in answer.logprobs or ())


def test_a_prompt_with_a_context_or_a_template_is_refused(ask: Ask) -> None:
    context = refused(ask, "generate", "scripted-echo", "on", context=[1, 2])
    template = refused(ask, "generate", "scripted-echo", "on", template="{{ .Prompt }}")

    assert (context.status_code, template.status_code) == (400, 400)
    assert "/api/chat" in context.error
    assert "raw" in template.error


def test_without_words_a_model_is_loaded(ask: Ask) -> None:
    assert ask("generate", "scripted-story").done_reason == "load"
    assert ask("chat", "scripted-story", []).done_reason == "load"
    assert ask("embed", "scripted-embed", []).embeddings == []
    assert "scripted-story" in [model.model for model in ask("ps").models]


@pytest.mark.feature("embeddings")
def test_texts_become_vectors_of_length_one(ask: Ask) -> None:
    two = ask("embed", "scripted-embed", ["one", "two"], truncate=True, dimensions=8)
    one = ask("embed", "scripted-embed", "one")

    assert [len(vector) for vector in two.embeddings] == [8, 8]
    assert sum(number * number for number in one.embeddings[0]) == pytest.approx(1, abs=1e-3)
    assert one.prompt_eval_count == 1


@pytest.mark.feature("embeddings")
def test_a_text_becomes_a_vector_the_old_way(ask: Ask) -> None:
    vector = ask("embeddings", "scripted-embed", "one").embedding

    assert vector == pytest.approx(ask("embed", "scripted-embed", "one").embeddings[0], abs=1e-3)


@pytest.mark.feature("models")
def test_models_are_listed_and_shown(ask: Ask) -> None:
    names = [model.model for model in ask("list").models]
    shown = ask("show", "scripted-embed")

    assert {"scripted-story", "scripted-embed"} <= set(names)
    assert all(len(model.digest) >= 12 for model in ask("list").models)
    assert shown.modelinfo["general.architecture"]
    assert "scripted-story" in [model.model for model in ask("list").models]


@pytest.mark.feature("errors")
def test_an_unknown_model_is_not_found(ask: Ask) -> None:
    for method, *args in (
        ("chat", "nope", HELLO),
        ("generate", "nope", "hi"),
        ("generate", "nope"),
        ("embed", "nope", "hi"),
        ("show", "nope"),
    ):
        error = refused(ask, method, *args)
        assert error.status_code == 404
        assert "not found" in error.error


@pytest.mark.feature("errors")
def test_what_fails_before_the_first_word_is_a_status(ask: Ask) -> None:
    for stream in (False, True):
        error = refused(ask, "chat", BUSY, HELLO, stream=stream)
        assert error.status_code == 400
        assert "context" in error.error


@pytest.mark.feature("errors", "streams")
def test_what_fails_in_the_middle_is_the_last_line(at: Fleet) -> None:
    heard: list[str] = []

    def listen() -> None:
        for part in ollama.Client(at.url).chat(BROKEN, HELLO, stream=True):
            heard.append(part.message.content)  # noqa: PERF401 - what was heard before counts

    with pytest.raises(ResponseError) as caught:
        listen()

    assert len(heard) >= 3
    assert caught.value.error


@pytest.mark.feature("cancel")
def test_a_caller_that_leaves_ends_its_job_and_the_backends_stream(at: Fleet) -> None:
    aborted = at.seen()["aborted"]
    with httpx.stream(
        "POST", f"{at.url}/api/chat", json={"model": SLOW, "messages": HELLO}
    ) as response:
        next(response.iter_bytes())
        job = response.headers["x-fleet-job"]

    def ended() -> bool:
        # Not with `wait_s`, which would follow the job, and so keep it from being cancelled.
        record = httpx.get(f"{at.url}/api/v1/jobs/{job}").json()
        return record["status"] == "cancelled"

    assert wait_until(ended)
    result = httpx.get(f"{at.url}/api/v1/jobs/{job}?wait_s=1").json()["result"]
    assert result["cancelled"]["by"] == "disconnect"
    assert wait_until(lambda: at.seen()["aborted"] == aborted + 1)


@pytest.mark.feature("cancel")
def test_a_caller_may_leave_its_job_behind(at: Fleet) -> None:
    client = ollama.Client(at.url, headers={"X-Fleet-On-Disconnect": "continue"})
    with closing(client.chat("scripted-story", HELLO, stream=True)) as parts:
        next(parts)
    jobs = httpx.get(f"{at.url}/api/v1/jobs?limit=1").json()["jobs"]
    ended = httpx.get(f"{at.url}/api/v1/jobs/{jobs[0]['id']}?wait_s=10").json()

    assert ended["status"] == "done"


def test_headers_reach_the_job(at: Fleet) -> None:
    headers = {"X-Fleet-Priority": "batch", "Idempotency-Key": f"ollama-{at.url}"}
    body = {"model": "scripted-echo", "messages": HELLO, "stream": False, "unknown": 1}
    first, again = (httpx.post(f"{at.url}/api/chat", json=body, headers=headers) for _ in range(2))

    assert first.headers["x-fleet-job"] == again.headers["x-fleet-job"]
    assert at.job(first.headers["x-fleet-job"])["priority"] == "batch"
    assert first.json()["message"] == again.json()["message"]


@pytest.mark.feature("models")
def test_a_model_is_pulled_and_can_be_asked_at_once(ask_box: Ask) -> None:
    *steps, last = ask_box("pull", "fresh", stream=True)
    asked = ask_box("chat", "fresh", HELLO)

    assert last.status == "success"
    assert any(step.total and step.completed == step.total for step in steps)
    assert ask_box("pull", "fresh").status == "success"
    assert asked.message.content
    assert ask_box("delete", "fresh").status == "success"


@pytest.mark.feature("models")
def test_a_model_is_made_copied_and_deleted(ask_box: Ask) -> None:
    made = ask_box(
        "create", "pirate", from_="scripted-echo", system="Arr.", parameters={"seed": 1},
        license="MIT", messages=HELLO, quantize="q4_K_M",
    )  # fmt: skip
    steps = ask_box("create", "pirate2", from_="scripted-echo", stream=True)
    copied = ask_box("copy", "pirate", "corsair")
    said = ask_box("generate", "corsair", "hello you").response
    gone = [ask_box("delete", name).status for name in ("pirate", "pirate2", "corsair")]

    assert (made.status, steps[-1].status, copied.status) == ("success", "success", "success")
    assert said == "hello you"
    assert gone == ["success"] * 3
    assert refused(ask_box, "delete", "pirate").status_code == 404


@pytest.mark.feature("models")
def test_a_model_is_unloaded(ask_box: Ask) -> None:
    ask_box("generate", "scripted-story")
    before = [model.model for model in ask_box("ps").models]
    unloaded = ask_box("generate", "scripted-story", keep_alive=0)

    assert "scripted-story" in before
    assert unloaded.done_reason == "unload"
    assert "scripted-story" not in [model.model for model in ask_box("ps").models]


@pytest.mark.feature("errors")
def test_what_cannot_work_over_a_queue_says_so(ask: Ask, tmp_path: Path) -> None:
    blob = tmp_path / "model.gguf"
    blob.write_bytes(b"GGUF")
    push = refused(ask, "push", "scripted-story")
    streamed = refused(ask, "push", "scripted-story", stream=True)
    upload = refused(ask, "create_blob", blob)
    files = refused(ask, "create", "x", from_="scripted-echo", files={"a.gguf": "sha256:0"})
    choice = refused(ask, "systemone", "m", "state", {})

    assert [push.status_code, streamed.status_code, upload.status_code] == [501, 501, 501]
    assert files.status_code == 400
    assert choice.status_code == 404


@pytest.mark.feature("errors")
def test_what_a_backend_cannot_do_is_refused(at: Fleet) -> None:
    if at.backends == ("ollama",):
        pytest.skip("an Ollama can")
    for method, *args in (("pull", "x"), ("delete", "scripted-echo"), ("copy", "a", "b")):
        error = refused(Sync(at.url), method, *args)
        assert error.status_code == 400
        assert method in error.error


def test_the_server_says_that_it_runs(at: Fleet) -> None:
    version = httpx.get(f"{at.url}/api/version").json()["version"]

    assert httpx.get(at.url).text == "Ollama is running"
    assert httpx.head(at.url).status_code == httpx.head(f"{at.url}/api/version").status_code == 200
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)


def test_recipes_for_curl_work_as_they_are_written(at: Fleet) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = '{"model": "scripted-echo", "prompt": "hello you", "stream": false}'
    said = httpx.post(f"{at.url}/api/generate", content=body, headers=form)
    page = httpx.post(
        f"{at.url}/api/generate", content=body, headers={**form, "origin": "https://elsewhere.test"}
    )

    assert said.json()["response"] == "hello you"
    assert page.status_code == 403


@pytest.mark.feature("cancel")
async def test_an_async_caller_that_leaves_ends_its_job(at: Fleet) -> None:
    async with ollama.AsyncClient(at.url) as client:
        parts: Any = await client.generate(SLOW, "tell", stream=True)
        async with aclosing(parts):
            await anext(parts)
    job = httpx.get(f"{at.url}/api/v1/jobs?limit=1").json()["jobs"][0]
    ended = httpx.get(f"{at.url}/api/v1/jobs/{job['id']}?wait_s=10").json()

    assert ended["status"] == "cancelled"
