"""A job's events as lines of Ollama's API, one JSON object each, and as one response."""

import json
import time
from typing import Any

import pytest

from api_shim.http.problems import Problem, Refusal
from api_shim.ollama.chat_response import (
    CHAT,
    GENERATE,
    ChatResponseLines,
    load_response,
    response_body,
)
from api_shim.ollama.errors import encoded, envelope
from api_shim.ollama.model_responses import ProgressLines
from contract.chat import ToolCall
from contract.events import (
    Delta,
    Done,
    Event,
    EventId,
    Frame,
    LogProb,
    Progress,
    Reset,
    Started,
    Timings,
    ToolCallDelta,
    Usage,
)
from contract.result import fold

AT = 1767225600.25
DONE = Done(
    finish_reason="length",
    usage=Usage(prompt_tokens=3, completion_tokens=2),
    timings=Timings(queued_ms=1, load_ms=2, first_token_ms=5, total_ms=16),
)
TEXTS = [
    "hi",
    ' "a","b" ',
    'a"}',
    "\\",
    'x","thinking":"y',
    "\u2028\u2029\x85",
    "\n\r\x0b",
    "日本",
    "",
]


def frame(event: Event) -> Frame:
    return Frame.of(EventId(1, 2), AT, event)


def told(*events: Event, shape: Any = CHAT) -> list[dict[str, Any]]:
    """What a client that cuts lines as httpx does reads of them."""
    text = ChatResponseLines("m", shape).render([frame(event) for event in events]).decode()
    return [json.loads(line) for line in text.splitlines()]


def test_a_fragment_is_a_line() -> None:
    (line,) = told(Delta(content="hi"))

    assert line == {
        "model": "m",
        "created_at": "2026-01-01T00:00:00.250Z",
        "message": {"role": "assistant", "content": "hi"},
        "done": False,
    }


def test_a_fragment_of_a_completion_has_its_own_place() -> None:
    content, thinking = told(Delta(content="hi"), Delta(thinking="hm"), shape=GENERATE)

    assert (content["response"], content["done"]) == ("hi", False)
    assert (thinking["response"], thinking["thinking"]) == ("", "hm")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("shape", [CHAT, GENERATE], ids=["chat", "generate"])
def test_any_text_comes_through_as_one_line(text: str, shape: Any) -> None:
    lines = told(Delta(content=text), Delta(content=text, thinking=text), shape=shape)
    said = [line.get("message", {}).get("content", line.get("response")) for line in lines]

    assert said == ([text, text] if text else [""])


def test_what_is_not_for_this_client_is_no_line() -> None:
    assert told(Started(attempt=1, worker="w", backend="b"), Delta(provider_meta={"a": "b"})) == []


def test_the_last_line_has_the_reason_of_the_end_and_the_durations() -> None:
    (last,) = told(DONE)

    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "length", "")
    assert (last["prompt_eval_count"], last["eval_count"]) == (3, 2)
    assert (last["total_duration"], last["load_duration"]) == (16_000_000, 2_000_000)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (3_000_000, 10_000_000)


def test_words_never_took_no_time_because_clients_divide_by_it() -> None:
    (last,) = told(Done(usage=Usage(completion_tokens=2)))

    assert last["eval_duration"] > 0


def test_calls_come_whole_with_objects_before_the_end() -> None:
    head = ToolCallDelta(index=0, id="c", name="look", arguments='{"at":')
    tail = ToolCallDelta(index=0, arguments='"cat"}')
    calls, last = told(
        Delta(tool_calls=(head,)), Delta(tool_calls=(tail,)), Done(finish_reason="tool_calls")
    )

    assert calls["message"]["tool_calls"] == [
        {"id": "c", "function": {"index": 0, "name": "look", "arguments": {"at": "cat"}}}
    ]
    assert (calls["done"], last["done"], last["done_reason"]) == (False, True, "stop")


def test_a_call_that_was_cut_off_ends_in_an_error() -> None:
    head = ToolCallDelta(index=0, id="c", name="look", arguments='{"at":')
    (error,) = told(Delta(tool_calls=(head,)), DONE)
    result = fold([Delta(tool_calls=(head,)), DONE])

    assert "num_predict" in error["error"]
    with pytest.raises(Refusal):
        response_body("m", CHAT, result)


def test_an_object_in_a_string_is_an_object() -> None:
    call = ToolCallDelta(index=0, id="c", name="look", arguments=json.dumps('{"at":1}'))
    calls, _ = told(Delta(tool_calls=(call,)), Done())

    assert calls["message"]["tool_calls"][0]["function"]["arguments"] == {"at": 1}


def test_calls_that_were_not_sent_are_discarded_with_the_attempt() -> None:
    call = ToolCallDelta(index=0, id="c", name="look", arguments='{"at":')
    (last,) = told(Delta(tool_calls=(call,)), Reset(attempt=2, reason=""), Done())

    assert last["done"]


def test_likelihoods_stand_beside_the_message() -> None:
    likely = (LogProb(token="hi", logprob=-0.5),)
    (line,) = told(Delta(content="hi", logprobs=likely))
    answer = json.loads(
        response_body("m", CHAT, fold([Delta(content="hi", logprobs=likely), DONE]))
    )

    assert (line["message"]["content"], line["logprobs"][0]["token"]) == ("hi", "hi")
    assert answer["logprobs"][0]["logprob"] == -0.5


def test_a_refusal_is_the_content() -> None:
    assert told(Delta(refusal="no"))[0]["message"]["content"] == "no"


def test_a_whole_answer_is_what_the_lines_add_up_to() -> None:
    result = fold([Delta(thinking="hm"), Delta(content="a"), Delta(content="b"), DONE])
    chat, text = (json.loads(response_body("m", shape, result)) for shape in (CHAT, GENERATE))

    assert chat["message"] == {"role": "assistant", "content": "ab", "thinking": "hm"}
    assert (text["response"], text["thinking"]) == ("ab", "hm")
    assert chat["done"]
    assert chat["eval_count"] == 2


def test_a_whole_answer_with_calls() -> None:
    delta = ToolCallDelta(index=0, id="c", name="look", arguments="")
    answer = json.loads(response_body("m", CHAT, fold([Delta(tool_calls=(delta,)), DONE])))

    assert answer["message"]["tool_calls"][0]["function"]["arguments"] == {}
    assert ToolCall(name="look").arguments == "{}"


def test_silence_is_a_line_that_adds_nothing() -> None:
    (line,) = (json.loads(each) for each in ChatResponseLines("m", CHAT).keep_alive.splitlines())

    assert (line["message"]["content"], line["done"]) == ("", False)


def test_a_load_is_an_empty_text_with_its_reason() -> None:
    answer = json.loads(load_response("m", GENERATE, "load", AT))

    assert (answer["response"], answer["done"], answer["done_reason"]) == ("", True, "load")


def test_the_steps_of_a_pull_are_sent_by_layer_and_end_with_success() -> None:
    layer = Progress(status="pulling aa", digest="sha256:aa", total_bytes=4, completed_bytes=2)
    steps = ProgressLines()
    data = steps.render([frame(layer), frame(Progress(status="success")), frame(Done())])
    lines = [json.loads(line) for line in data.splitlines()]

    assert lines[0] == {
        "status": "pulling aa", "digest": "sha256:aa", "total": 4, "completed": 2,
    }  # fmt: skip
    assert [line["status"] for line in lines[1:]] == ["success"]


def test_a_backend_that_never_sends_success_succeeds_when_it_is_done() -> None:
    data = ProgressLines().render([frame(Progress(status="writing")), frame(Done())])

    assert data.splitlines()[-1] == b'{"status":"success"}'


def problem(code: str, status: int, **fields: Any) -> Problem:
    return Problem(type="t", title="t", status=status, detail="why", code=code, **fields)


@pytest.mark.parametrize(
    ("code", "status", "theirs", "words"),
    [
        ("invalid_request", 422, 400, "why"),
        ("not_supported", 422, 400, "why"),
        ("unknown_model", 404, 404, "model not found, try pulling it first: why"),
        ("queue_full", 429, 503, "server busy, please try again: why"),
        ("not_authenticated", 401, 401, "why"),
    ],
)
def test_a_problem_has_the_status_and_text_of_the_original(
    code: str, status: int, theirs: int, words: str
) -> None:
    response = envelope(problem(code, status, retry_after_s=1.2), {"X-Fleet-Job": "j"})

    assert response.status_code == theirs
    assert json.loads(response.body) == {"error": words, "code": code}
    assert (response.headers["retry-after"], response.headers["x-fleet-job"]) == ("2", "j")


def test_an_error_in_a_stream_is_a_line() -> None:
    line = ChatResponseLines("m", CHAT).render_error(problem("server_fault", 502))

    assert line == encoded(problem("server_fault", 502)) + b"\n"
    assert line.count(b"\n") == 1


def calling(*texts: str) -> Delta:
    parts = [ToolCallDelta(index=at, name="f", arguments=text) for at, text in enumerate(texts)]
    return Delta(tool_calls=tuple(parts))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_cannot_say_are_no_arguments(number: str) -> None:
    (line,) = told(calling(f'{{"a":{number}}}'), DONE)

    assert "arguments that are not a JSON object" in line["error"]


@pytest.mark.parametrize(
    "texts",
    [
        ['{"a":[' + "[]," * 60_000 + "[]]}"],
        ['{"a":[' + "[]," * 2000 + "[]]}"] * 30,
        ["{}"] * 60_000,
        ['{"a":"' + "x" * 2**23 + '"}'],
    ],
)
def test_arguments_that_hold_much_are_refused(texts: list[str]) -> None:
    (line,) = told(calling(*texts), DONE)
    calls = tuple(ToolCall(id="c", name="f", arguments=text) for text in texts)
    with pytest.raises(Refusal) as refused:
        response_body("m", CHAT, fold([]).model_copy(update={"tool_calls": calls}))

    assert "too large for this API: it holds more than" in line["error"]
    assert refused.value.status_code == 502


def test_arguments_inside_of_a_text_are_bounded_as_well() -> None:
    (line,) = told(calling(json.dumps('{"a":[' + "[]," * 60_000 + "[]]}")), DONE)

    assert "arguments that are not a JSON object" in line["error"]


def test_many_fragments_of_a_call_are_joined_once() -> None:
    lines = ChatResponseLines("m", CHAT)
    pieces = ['{"a":"', *["x" * 100] * 50_000, '"}']
    started = time.perf_counter()
    text = lines.render([frame(calling(piece)) for piece in pieces] + [frame(DONE)])

    assert len(text) > 5_000_000
    assert time.perf_counter() - started < 20
