"""What a backend sends is data: too much of it ends its own job, before it takes memory or time.

Subjects: workers/backends/http/json_text.py, workers/backends/tools.py, workers/backends/shapes.py.
"""

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import pytest
from support.backends import against_bytes, chat_request, folded

from contract.embeddings import EmbedRequest
from contract.errors import BackendError, BadAnswer, BadEndpoint, ServerFault
from contract.events import Delta, ToolCallDelta
from contract.images import ImageRequest
from contract.models import PullRequest
from contract.rerank import RerankRequest
from workers.backends.http.error_table import MESSAGE_LIMIT, error_from, error_in
from workers.backends.http.json_text import StreamJson, parse_json
from workers.backends.openai.chunks import OpenAIChunks, ReasoningDetails
from workers.backends.openai.llamacpp_router import DownloadProgress, load_progress
from workers.backends.shapes import DownloadSums
from workers.backends.tools import MOST_CALLS, CallBounds

QUICK_S: Final = 10.0
"""Many times what it takes."""
MUCH: Final = b'{"a":[' + b"[]," * 200_000 + b"[]]}"
"""600 KB, and eighteen million bytes once it is parsed."""
ADAPTERS: Final = ("generic", "openai", "llamacpp", "vllm", "ollama", "gemini")


def sse(*chunks: Any) -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks)


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


def as_stream(type: str, text: bytes) -> bytes:
    return text + b"\n" if type == "ollama" else b"data: %s\n\n" % text


async def chatted(type: str, *packets: bytes, **options: Any) -> Any:
    async with against_bytes(type, *packets, **options) as backend:
        return await folded(backend.chat(chat_request("m")))


@pytest.mark.parametrize("type", ADAPTERS)
@pytest.mark.parametrize(
    "text",
    [MUCH, b'{"a":' + b'"",' * 200_000 + b'""}', b"[" + b"1," * 400_000 + b"1]", b'{"a":"\\ud800",'
     b'"b":' + b"[" * 900 + b"]" * 900 + b"}", b"[" * 100_000],
    ids=["lists", "texts", "numbers", "half and deep", "deep"],
)  # fmt: skip
async def test_a_chunk_that_holds_much_ends_its_job(type: str, text: bytes) -> None:
    with pytest.raises(BackendError, match=r"too large|not JSON"):
        await chatted(type, as_stream(type, text))


@pytest.mark.parametrize("type", ["generic", "gemini"])
async def test_an_answer_that_was_not_streamed_has_an_end(type: str) -> None:
    with pytest.raises(BadEndpoint, match="answered more than"):
        await chatted(type, *[b" " * 2**20] * 17, content_type="application/json")


@pytest.mark.parametrize("type", ADAPTERS)
async def test_a_line_without_an_end_is_not_kept(type: str) -> None:
    with pytest.raises(BadEndpoint, match="line or event of more than"):
        await chatted(
            type, b'data: {"a":"' if type != "ollama" else b'{"a":"', *[b"x" * 2**20] * 17
        )


@pytest.mark.parametrize("type", ["generic", "ollama", "gemini"])
async def test_vectors_have_as_many_numbers_as_vectors_have(type: str) -> None:
    body = b'{"data":[{"embedding":[' + b"1," * 100_000 + b"1]}]}"
    async with against_bytes(type, body, content_type="application/json") as backend:
        with pytest.raises(BackendError, match="too large"):
            await folded(backend.embed(EmbedRequest(model="m", input=("a",))))


async def test_scores_hold_no_more_than_a_request() -> None:
    async with against_bytes("vllm", MUCH, content_type="application/json") as backend:
        with pytest.raises(BadAnswer, match="too large"):
            await folded(backend.rerank(RerankRequest(model="m", query="a", documents=("b",))))


@pytest.mark.parametrize("type", ["generic", "ollama", "gemini"])
async def test_a_list_of_models_holds_no_more_either(type: str) -> None:
    body = b'{"data":[' + b'{"id":"a"},' * 200_000 + b'{"id":"b"}]}'
    async with against_bytes(type, body, content_type="application/json") as backend:
        with pytest.raises(BadAnswer, match="too large"):
            await backend.models()


@pytest.mark.parametrize(
    "call",
    [
        ToolCallDelta(index=MOST_CALLS),
        ToolCallDelta(index=-1),
        ToolCallDelta(index=0, name="f" * 1025),
        ToolCallDelta(index=0, id="i" * 65_537),
    ],
)
def test_a_call_that_cannot_be_sent_back_ends_its_job(call: ToolCallDelta) -> None:
    with pytest.raises(BadAnswer, match="tool calls"):
        CallBounds().demand(Delta(tool_calls=(call,)))

    CallBounds().demand(Delta(tool_calls=(ToolCallDelta(index=MOST_CALLS - 1, name="f", id="i"),)))


def test_arguments_of_all_calls_have_a_bound_together() -> None:
    bounds = CallBounds()
    for index in range(8):
        bounds.demand(Delta(tool_calls=(ToolCallDelta(index=index, arguments="x" * 2**20),)))

    with pytest.raises(BadAnswer, match="more than 8388608 characters of arguments"):
        bounds.demand(Delta(tool_calls=(ToolCallDelta(index=0, arguments="x"),)))


@pytest.mark.parametrize("index", ["x", -5, 1e300, 2**70, None, 0.5])
def test_any_index_of_a_call_becomes_a_small_one(index: Any) -> None:
    chunks = OpenAIChunks()
    calls = [{"index": index, "id": f"c{at}", "function": {"name": "f"}} for at in range(3)]
    events = [chunks.event(delta(tool_calls=[call])) for call in calls]

    assert [event.tool_calls[0].index for event in events if event] == [0, 1, 2]  # type: ignore[union-attr, index]


@pytest.mark.parametrize("type", ["generic", "ollama"])
async def test_a_chunk_has_few_calls(type: str) -> None:
    calls = [{"function": {"name": "f", "arguments": {}}}] * (MOST_CALLS + 1)
    chunk = {"message": {"tool_calls": calls}} if type == "ollama" else delta(tool_calls=calls)
    with pytest.raises(BadAnswer, match="tool calls in a chunk"):
        await chatted(type, as_stream(type, json.dumps(chunk).encode()))


async def test_a_stop_sequence_that_no_request_can_name_is_not_told() -> None:
    ends = [{"delta": {"content": "a"}, "finish_reason": "x" * 10**6, "stop_reason": "y" * 5000}]
    result = await chatted("vllm", sse({"choices": ends}))

    assert (result.finish_reason, result.stop_sequence) == ("stop", None)


@pytest.mark.parametrize(
    ("told", "slots"),
    [(8, 8), (10**12, 4096), (2**70, None), (-1, None), (0, None), ("x", None), (1e300, None)],
)
async def test_a_server_has_no_more_slots_than_a_worker_can_serve(
    told: Any, slots: int | None
) -> None:
    raw = json.dumps({"total_slots": told}).encode()
    async with against_bytes("llamacpp", raw, content_type="application/json") as backend:
        assert await backend.slots() == slots
        await backend.check()
        assert backend.prompt_slots == (slots or 0)


@pytest.mark.parametrize(
    ("format", "type"),
    [("webp", "image/webp"), ("svg+xml", "image/svg+xml"), ("png\r\nx: y", "image/png"),
     ("../x", "image/png"), ("\x1b[2J", "image/png"), ("p" * 33, "image/png"), ("", "image/png")],
)  # fmt: skip
async def test_the_type_of_an_image_is_a_word(format: str, type: str) -> None:
    answers = {
        "openai": {"data": [{"b64_json": "iVBORw0KGgo="}], "output_format": format},
        "gemini": {"candidates": [{"content": {"parts": [{"inlineData": {
            "data": "iVBORw0KGgo=", "mimeType": f"image/{format}"}}]}}]},
    }  # fmt: skip
    for backend_type, body in answers.items():
        raw = json.dumps(body).encode()
        async with against_bytes(backend_type, raw, content_type="application/json") as backend:
            result = await folded(backend.image(ImageRequest(model="m", prompt="x")))

        assert [image.mime_type for image in result.images] == [type]


@pytest.mark.parametrize("count", [-1, 1.5, "many", 10**10, 2**63, 1e300, [1], {"a": 1}])
@pytest.mark.parametrize("type", ["generic", "ollama", "gemini"])
async def test_counts_that_no_answer_has_are_no_usage(type: str, count: Any) -> None:
    end = {
        "generic": {
            "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": count, "completion_tokens": count},
        },
        "ollama": {
            "message": {"content": "a"}, "done": True, "done_reason": "stop",
            "prompt_eval_count": count, "eval_count": count,
        },
        "gemini": {
            "candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": count, "candidatesTokenCount": count},
        },
    }[type]  # fmt: skip
    result = await chatted(type, as_stream(type, json.dumps(end).encode()))

    assert (result.content, result.usage) == ("a", None)


@pytest.mark.parametrize(
    "error",
    [
        {"error": "a " * 2_000_000},
        {"error": {"message": "x", "type": "model " * 1_000_000}},
        {"error": {"message": {"a": "b" * 8_000_000}}},
        {"error": {"message": "x", "code": ["y"] * 100_000}},
        {"error": {"message": [float("nan"), float("inf")]}},
    ],
)
def test_an_endless_error_is_looked_at_from_its_begin(error: Any) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    made = error_in(error)
    spent_s, (_, peak_bytes) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(made.message) < MESSAGE_LIMIT + 100
    assert peak_bytes < 40 * 2**20
    assert spent_s < QUICK_S


def test_an_error_has_a_bounded_message() -> None:
    assert len(ServerFault("x" * 100_000).message) <= 8000 >= len(str(ServerFault("x" * 10**6)))


@pytest.mark.parametrize("wait", ["nan", "inf", "1e300", "99999999999", "Fri, 31 Dec 9999 1:1:1 Z"])
def test_nobody_is_told_to_wait_for_ever(wait: str) -> None:
    assert error_from(503, b"busy", {"retry-after": wait}).retry_after_s is None


async def test_lines_that_are_no_events_are_not_kept_for_ever() -> None:
    started = time.perf_counter()
    for lines in ([b"[\n", *[b'{"a":1}\n,\n', b"}\n"] * 5000], [b"y" * 1000 + b"\n"] * 1000):
        with pytest.raises(ServerFault):
            await chatted("gemini", *lines)

    assert time.perf_counter() - started < QUICK_S


async def test_the_layers_of_a_pull_are_summed_once() -> None:
    lines = [{"digest": f"d{at}", "total": 2, "completed": 1} for at in range(10_000)]
    raw = b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, {"status": "success"}])
    started = time.perf_counter()
    async with against_bytes("ollama", raw) as backend:
        progress = (await folded(backend.pull(PullRequest(model="m")))).progress

    assert progress is not None
    assert (progress.overall_total_bytes, progress.overall_completed_bytes) == (20_000, 10_000)
    assert time.perf_counter() - started < QUICK_S


def test_the_layers_of_a_pull_are_not_endless() -> None:
    sums = DownloadSums()
    for _ in range(2):
        for at in range(DownloadSums.MOST_PARTS):
            sums.put(f"d{at}", 1, 1)

    assert sums.total_bytes == DownloadSums.MOST_PARTS
    with pytest.raises(BadAnswer, match="parts"):
        sums.put("another", 1, 1)


@pytest.mark.parametrize("odd", ["x", None, [1], {}, 1e400, -1, 2**80])
def test_odd_counts_of_a_router_are_none(odd: Any) -> None:
    told = DownloadProgress().progress({"u": {"done": odd, "total": odd}})
    loaded = load_progress({"progress": {"value": odd, "stages": ["a", "b"], "current": "b"}})

    assert (told.overall_total_bytes, told.overall_completed_bytes) == (0, 0)
    assert loaded is None or 0 <= loaded <= 1


@pytest.mark.parametrize("kind", ["reasoning.text", "reasoning.other"])
def test_reasoning_details_are_joined_once_and_bounded(kind: str) -> None:
    details = ReasoningDetails()
    started = time.perf_counter()
    for _ in range(50_000):
        details.add([{"type": kind, "index": 0, "text": "x" * 50}])
    (*_, last) = details.add([{"type": kind, "index": 0, "signature": "s"}])["reasoning_details"]  # type: ignore[index]

    assert last["signature"] == "s"
    assert len(last.get("text", "")) == (2_500_000 if kind == "reasoning.text" else 0)
    with pytest.raises(BadAnswer, match="reasoning_details"):
        details.add([{"type": kind, "text": "x" * 8_000_000}])
    assert time.perf_counter() - started < QUICK_S


@pytest.mark.parametrize("text", [5, ["a"], {"b": 1}, True])
def test_odd_texts_of_reasoning_details_are_sent_back(text: Any) -> None:
    detail = {"type": "reasoning.text", "index": 0, "text": text, "signature": "s"}

    assert ReasoningDetails().add([detail, detail]) == {"reasoning_details": [detail, detail]}


@pytest.mark.parametrize("parse", [parse_json, StreamJson().read])
def test_levels_are_bounded_with_halves_of_characters_as_well(
    parse: Callable[[bytes], Any],
) -> None:
    for levels in (250, 900, 40_000):
        with pytest.raises(ValueError, match=r"recursion limit|hex escape"):
            parse(b'{"a":"\\ud800","b":' + b"[" * levels + b"]" * levels + b"}")
