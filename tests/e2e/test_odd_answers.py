"""Answers as servers really write them, one oddity each, on every surface they reach."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from support.fixed_answers import FixedAnswers, answering

from api_shim.batch.parts import succeeded
from fleet.cli.terminal import Terminal

NDJSON = {"Accept": "application/x-ndjson"}
ANSWERS = FixedAnswers()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with answering(tmp_path_factory.mktemp("odd"), ANSWERS) as (url, _):
        yield url


def asked(url: str, path: str, **body: Any) -> httpx.Response:
    said = {"backend": "odd", **body} if path.startswith("/api/v1") else body
    return httpx.post(url + path, json=said, timeout=20)


def chat(url: str, path: str, *, stream: bool, **fields: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "hi"}]
    words: dict[str, Any] = {"messages": messages, "stream": stream}
    if path == "/v1/responses":
        words = {"input": "hi", "stream": stream}
    if path.startswith("/api/v1"):
        del words["stream"]
    return asked(url, path, **{"model": "m", **words, **fields})


def events(url: str, **fields: Any) -> list[dict[str, Any]]:
    """The events of a chat in the native stream."""
    answer = chat(url, "/api/v1/jobs/chat", stream=False, **fields)
    assert answer.status_code == 202, answer.text
    job = answer.headers["x-fleet-job"]
    told = httpx.get(f"{url}/api/v1/jobs/{job}/events", headers=NDJSON, timeout=20)
    return [json.loads(line) for line in told.content.split(b"\n") if line]


def record(url: str, job: str) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"{url}/api/v1/jobs/{job}").json()
    return told


def sse(answer: httpx.Response) -> list[Any]:
    data = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def fragment(index: int | None, id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    call: dict[str, Any] = {"type": "function", "function": function}
    return {**call, **({} if index is None else {"index": index}), **({"id": id} if id else {})}


FIRST = ("call_a", "f_a", '{"x":1}')
SECOND = ("call_b", "f_b", '{"y":2}')
CALLS = {
    "equal": [[fragment(0, *FIRST)], [fragment(0, *SECOND)]],
    "from one": [[fragment(1, *FIRST)], [fragment(2, *SECOND)]],
    "absent": [[fragment(None, *FIRST)], [fragment(None, *SECOND)]],
    "in one chunk": [[fragment(0, *FIRST), fragment(0, *SECOND)]],
    "in pieces": [
        [fragment(1, "call_a", "f_a", '{"x"')], [fragment(1, None, None, ":1}")],
        [fragment(2, "call_b", "f_b", '{"y"')], [fragment(2, "call_b", None, ":2}")],
    ],
}  # fmt: skip
WANTED = [FIRST, SECOND]


@pytest.fixture(params=CALLS)
def calls(request: pytest.FixtureRequest) -> None:
    deltas = [{"tool_calls": each} for each in CALLS[request.param]]
    ANSWERS.deltas("m", *deltas, finish="tool_calls")


def put_together(fragments: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """As openai-python does it: a list by index, in which no place is skipped."""
    made: list[list[str]] = []
    for each in fragments:
        if each["index"] == len(made):
            made.append([each["id"], each["function"]["name"], ""])
        made[each["index"]][2] += each["function"].get("arguments") or ""
    return [(id, name, arguments) for id, name, arguments in made]


def test_two_calls_are_two_in_the_native_events_and_the_record(calls: None, url: str) -> None:
    told = events(url)
    fragments = [call for event in told for call in event.get("tool_calls") or ()]
    flat = [{**f, "function": {k: f.get(k) for k in ("name", "arguments")}} for f in fragments]
    job = httpx.get(f"{url}/api/v1/jobs?limit=1").json()["jobs"][0]["id"]
    kept = record(url, job)["result"]["tool_calls"]

    assert put_together(flat) == WANTED
    assert [(call["id"], call["name"], call["arguments"]) for call in kept] == WANTED


def test_two_calls_are_two_in_a_stream_of_chunks(calls: None, url: str) -> None:
    told = sse(chat(url, "/v1/chat/completions", stream=True))
    deltas = [choice["delta"] for each in told for choice in each["choices"]]

    assert put_together([call for d in deltas for call in d.get("tool_calls") or ()]) == WANTED


def test_the_stream_helper_of_openai_python_finds_both(calls: None, url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="x")
    messages: Any = [{"role": "user", "content": "hi"}]
    with client.chat.completions.stream(model="m", messages=messages) as stream:
        found = stream.get_final_completion().choices[0].message.tool_calls or []

    assert [(c.id, c.function.name, c.function.arguments) for c in found] == WANTED


def test_two_calls_are_two_in_a_whole_answer(calls: None, url: str) -> None:
    told = chat(url, "/v1/chat/completions", stream=False).json()["choices"][0]
    found = told["message"]["tool_calls"]
    read = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in found]

    assert (read, told["finish_reason"]) == (WANTED, "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
def test_two_calls_are_two_items_of_a_response(*, stream: bool, calls: None, url: str) -> None:
    answer = chat(url, "/v1/responses", stream=stream)
    response = sse(answer)[-1]["response"] if stream else answer.json()
    found = [item for item in response["output"] if item["type"] == "function_call"]

    assert [(item["call_id"], item["name"], item["arguments"]) for item in found] == WANTED


@pytest.mark.parametrize("stream", [False, True])
def test_two_calls_are_two_for_ollamas_clients(*, stream: bool, calls: None, url: str) -> None:
    answer = chat(url, "/api/chat", stream=stream)
    told = [json.loads(line) for line in answer.text.split("\n") if line]
    found = [call for each in told for call in each["message"].get("tool_calls") or ()]

    assert [call["function"]["name"] for call in found] == ["f_a", "f_b"]
    assert [call["function"]["arguments"] for call in found] == [{"x": 1}, {"y": 2}]


def test_the_older_function_call_is_a_call(url: str) -> None:
    begin, rest = {"name": "f_a", "arguments": '{"x"'}, {"arguments": ":1}"}
    ANSWERS.deltas("m", {"function_call": begin}, {"function_call": rest}, finish="function_call")
    told = chat(url, "/v1/chat/completions", stream=False).json()["choices"][0]
    call = told["message"]["tool_calls"][0]["function"]

    assert (call["name"], call["arguments"], told["finish_reason"]) == (
        "f_a", '{"x":1}', "tool_calls",
    )  # fmt: skip


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
PARTS = [THOUGHT, {"type": "text", "text": "Hi"}, {"type": "reference", "reference_ids": [1]}]


@pytest.mark.parametrize("stream", [False, True])
def test_content_in_parts_is_words_and_thoughts(*, stream: bool, url: str) -> None:
    ANSWERS.deltas("m", {"role": "assistant", "content": PARTS})
    answer = chat(url, "/v1/chat/completions", stream=stream)
    pieces = sse(answer) if stream else [answer.json()]
    said = [c.get("delta") or c.get("message") or {} for each in pieces for c in each["choices"]]
    native = [event for event in events(url) if event["type"] == "delta"]
    lines = chat(url, "/api/chat", stream=False).json()["message"]
    items = chat(url, "/v1/responses", stream=False).json()["output"]

    assert "".join(each.get("content") or "" for each in said) == "Hi"
    assert "".join(each.get("reasoning_content") or "" for each in said) == "Hm"
    assert [(event["content"], event["thinking"]) for event in native] == [("Hi", "Hm")]
    assert (lines["content"], lines["thinking"]) == ("Hi", "Hm")
    assert items[-1]["content"][0]["text"] == "Hi"


def test_an_unknown_shape_is_a_bad_answer_with_its_path(url: str) -> None:
    ANSWERS.deltas("m", {"content": {"not": "text"}})
    failed = events(url)[-1]
    error = chat(url, "/v1/chat/completions", stream=True).json()["error"]
    response = chat(url, "/v1/responses", stream=False).json()["error"]
    line = chat(url, "/api/chat", stream=False)

    assert (failed["code"], failed["retryable"]) == ("bad_answer", False)
    assert "choices[0].delta.content: it is an object" in failed["message"]
    assert error["code"] == "bad_answer"
    assert "choices[0].delta.content" in response["message"]
    assert (line.status_code, line.json()["code"]) == (502, "bad_answer")


CUTS = "a\u2028b\u2029c\u0085d"


def test_no_character_of_an_answer_cuts_a_line(url: str) -> None:
    ANSWERS.deltas("m", {"content": CUTS}, {"content": CUTS, "reasoning_content": CUTS})
    job = chat(url, "/api/v1/jobs/chat", stream=False).headers["x-fleet-job"]
    native = httpx.get(f"{url}/api/v1/jobs/{job}/events", headers=NDJSON, timeout=20)
    lines = [native, chat(url, "/api/chat", stream=True)]
    told = [[json.loads(line) for line in answer.iter_lines()] for answer in lines]
    streams = [
        httpx.get(f"{url}/api/v1/jobs/{job}/events", timeout=20),
        chat(url, "/v1/chat/completions", stream=True),
        chat(url, "/v1/responses", stream=True),
    ]
    fields = {line.partition(":")[0] for each in streams for line in each.iter_lines() if line}

    assert [event["content"] for event in told[0] if event["type"] == "delta"] == [CUTS, CUTS]
    assert "".join(line["message"]["content"] for line in told[1]) == CUTS * 2
    assert fields <= {"data", "event", "id", "retry"}


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e39", "null"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_vector_that_is_none_fails_its_text_on_every_surface(number: str, url: str) -> None:
    ANSWERS.rows = {"good": "[0.5,1]", "bad": f"[0.5,{number}]"}
    texts = ["good", "bad"]
    native = asked(url, "/api/v1/jobs/embed", model="m", input=texts).headers["x-fleet-job"]
    record = httpx.get(f"{url}/api/v1/jobs/{native}?wait_s=20", timeout=30).json()
    failed = record["result"]["error"]
    whole = asked(url, "/v1/embeddings", model="m", input=texts)
    lines = asked(url, "/api/embed", model="m", input=texts)

    assert (failed["code"], failed["message"][:9]) == ("not_finite", "input[1]:")
    assert (whole.status_code, whole.json()["error"]["code"]) == (502, "not_finite")
    assert (lines.status_code, lines.json()["code"]) == (502, "not_finite")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/api/chat"])
@pytest.mark.parametrize("stream", [False, True])
def test_invalid_numbers_that_only_describe_are_left_out(
    path: str, *, stream: bool, url: str
) -> None:
    likely = '{"content":[{"token":"a","logprob":NaN}]}'
    first = f'{{"index":0,"delta":{{"content":"a"}},"logprobs":{likely}}}'
    last = '{"index":0,"delta":{},"finish_reason":"stop"}'
    usage = '{"prompt_tokens":NaN,"completion_tokens":Infinity}'
    chunks = [f'{{"choices":[{first}]}}', f'{{"choices":[{last}],"usage":{usage}}}', "[DONE]"]
    ANSWERS.streams["m"] = [f"data: {chunk}\n\n".encode() for chunk in chunks]
    answer = chat(url, path, stream=stream)
    lines = [line.removeprefix("data: ") for line in answer.iter_lines()]
    values = [json.loads(x, parse_constant=pytest.fail) for x in lines if x.startswith("{")]

    assert (answer.status_code, bool(values)) == (200, True)


def test_a_line_of_a_batchs_output_is_one_line() -> None:
    line = succeeded(0, "j", CUTS, {"content": CUTS, "vector": [float("nan")]}).line

    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["response"]["body"] == {"content": CUTS, "vector": [None]}


def test_a_line_that_the_command_writes_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(json=True).write_json(json.dumps({"text": CUTS}, ensure_ascii=False).encode())

    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"text": CUTS}]


def test_a_mark_at_the_start_and_bare_returns_are_no_fault(url: str) -> None:
    ANSWERS.deltas("m", {"content": "Hi"})
    body = b"".join(ANSWERS.streams["m"]).replace(b"\n", b"\r")
    ANSWERS.streams["m"] = [b"\xef", b"\xbb\xbf" + body]
    told = chat(url, "/v1/chat/completions", stream=False).json()

    assert told["choices"][0]["message"]["content"] == "Hi"


def counted(text: str, tokens: int) -> bytes:
    """A chunk with what was counted until then, as vLLM and Gemini send it."""
    usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}], "usage": usage}
    return b"data: %s\n\n" % json.dumps(chunk).encode()


SPENT = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 0, "reasoning_tokens": 0}


def test_a_stream_that_is_cut_keeps_what_it_has_cost(url: str) -> None:
    ANSWERS.streams["m"] = [counted("a", 1), counted("b", 2)]
    job = chat(url, "/api/v1/jobs/chat", stream=False, max_attempts=1).headers["x-fleet-job"]
    told = httpx.get(f"{url}/api/v1/jobs/{job}?wait_s=20", timeout=30).json()["result"]

    assert (told["status"], told["error"]["code"]) == ("failed", "truncated_stream")
    assert told["usage"] == {**SPENT, "partial": True}


def test_an_answer_that_is_cancelled_keeps_what_it_has_cost(url: str) -> None:
    ANSWERS.streams["m"] = [counted("a", 1), counted("b", 2), b""]
    background = chat(url, "/v1/responses", stream=False, background=True).json()["id"]
    job = chat(url, "/api/v1/jobs/chat", stream=False).headers["x-fleet-job"]
    for each in (job, background.removeprefix("resp_")):
        until(lambda each=each: record(url, each)["result"]["content"] == "ab")
    httpx.delete(f"{url}/api/v1/jobs/{job}")
    cancelled = httpx.post(f"{url}/v1/responses/{background}/cancel").json()
    told = record(url, job)["result"]

    assert (told["status"], told["usage"]) == ("cancelled", {**SPENT, "partial": True})
    assert (cancelled["status"], cancelled["usage"]["total_tokens"]) == ("cancelled", 5)


def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_an_answer_that_ends_has_its_usage_once_and_whole(url: str) -> None:
    last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    ANSWERS.streams["m"] = [counted("a", 1), counted("b", 2), last, b"data: [DONE]\n\n"]
    done = events(url)[-1]
    options = {"include_usage": True}
    pieces = sse(chat(url, "/v1/chat/completions", stream=True, stream_options=options))
    told = [piece["usage"] for piece in pieces if piece.get("usage")]

    assert done["usage"] == {**SPENT, "partial": False}
    assert [usage["total_tokens"] for usage in told] == [5]


def test_a_backend_without_usage_has_none_in_every_api(url: str) -> None:
    ANSWERS.deltas("m", {"content": "Hi"})
    ANSWERS.rows = {"hi": "[0.5,1]"}
    options = {"include_usage": True}
    pieces = sse(chat(url, "/v1/chat/completions", stream=True, stream_options=options))
    line = chat(url, "/api/chat", stream=False).json()
    response = sse(chat(url, "/v1/responses", stream=True))[-1]["response"]

    assert events(url)[-1]["usage"] is None
    assert chat(url, "/v1/chat/completions", stream=False).json()["usage"] is None
    assert [piece["usage"] for piece in pieces] == [None] * len(pieces)
    assert chat(url, "/v1/responses", stream=False).json()["usage"] is None
    assert (response["status"], response["usage"]) == ("completed", None)
    assert {"eval_count", "prompt_eval_count"}.isdisjoint(line)
    assert asked(url, "/v1/embeddings", model="m", input="hi").json()["usage"] is None
    assert "prompt_eval_count" not in asked(url, "/api/embed", model="m", input="hi").json()
