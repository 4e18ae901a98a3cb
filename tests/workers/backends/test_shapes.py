"""Counts that are no whole number, and null texts, in responses of every HTTP adapter.

Subjects: workers/backends/shapes.py, workers/backends/openai/chunks.py.
"""

import json
from typing import Any

import pytest
from support.backends import against_bytes, chat_request, folded

from contract.events import Usage
from contract.result import Result
from workers.backends.shapes import count


def openai_answer(prompt: Any, completion: Any) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    choice = {"delta": {"content": "a"}, "finish_reason": "stop"}
    chunk = json.dumps({"choices": [choice], "usage": usage})
    return f"data: {chunk}\n\ndata: [DONE]\n\n".encode()


def ollama_answer(prompt: Any, completion: Any) -> bytes:
    counts = {"prompt_eval_count": prompt, "eval_count": completion}
    line = {"message": {"content": "a"}, "done": True, "done_reason": "stop", **counts}
    return json.dumps(line).encode() + b"\n"


def gemini_answer(prompt: Any, completion: Any) -> bytes:
    candidate = {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}
    usage = {"promptTokenCount": prompt, "candidatesTokenCount": completion}
    chunk = json.dumps({"candidates": [candidate], "usageMetadata": usage})
    return f"data: {chunk}\n\n".encode()


ANSWERS = {"generic": openai_answer, "ollama": ollama_answer, "gemini": gemini_answer}


async def answer(kind: str, *packets: bytes) -> Result:
    async with against_bytes(kind, *packets) as backend:
        return await folded(backend.chat(chat_request("m")))


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("wrong", [1.5, "1.5", "many", -1, True, [1]])
async def test_a_usage_with_a_count_that_is_no_whole_number_is_unknown(
    kind: str, wrong: Any
) -> None:
    results = [await answer(kind, ANSWERS[kind](*counts)) for counts in [(3, wrong), (wrong, 2)]]

    assert [(result.content, result.usage) for result in results] == [("a", None)] * 2


@pytest.mark.parametrize("kind", ANSWERS)
async def test_whole_numbers_may_be_text_or_floats(kind: str) -> None:
    result = await answer(kind, ANSWERS[kind]("3", 2.0))

    assert result.usage == Usage(prompt_tokens=3, completion_tokens=2)


def test_a_count_is_bounded() -> None:
    assert [count(value) for value in (2**53, str(2**53), "0")] == [2**53, 2**53, 0]
    assert {count(value) for value in (2**53 + 2, "9" * 5000, "", "²", "-1", 1e300)} == {None}


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
async def test_the_null_text_of_a_part_is_empty(field: str) -> None:
    parts = [{"type": "text", "text": None}, {"type": "text", "text": "a"}]
    choice = {"delta": {field: parts}, "finish_reason": "stop"}
    chunk = json.dumps({"choices": [choice]})
    result = await answer("generic", f"data: {chunk}\n\n".encode())

    assert result.content + result.thinking == "a"
