"""Answers as servers really write them, one oddity each, on every surface they reach."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from support.fixed_answers import FixedAnswers, answering

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
    """What the native stream says of a chat."""
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


def test_a_shape_that_nobody_knows_is_a_bad_answer_with_its_path(url: str) -> None:
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
