"""Completions, embeddings and images are translated from OpenAI's API to the contract, and back.

Subjects: api_shim/openai/completions.py, api_shim/openai/embeddings.py, api_shim/openai/images.py.
"""

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError

from api_shim.http.problems import Problem, Refusal
from api_shim.openai import completions, images
from api_shim.openai.completions import CompletionBody, echoed_prompt, to_completion
from api_shim.openai.embeddings import EmbeddingBody, pieces, response_body, to_embed
from api_shim.openai.errors import encoded, envelope
from api_shim.openai.images import ImageBody, to_image
from api_shim.openai.response_head import ResponseHead
from contract.embeddings import pack
from contract.events import Delta, Done, EventId, Frame, Image, LogProb, Usage, Vectors
from contract.images import ImageRequest
from contract.result import fold

HEADING = ResponseHead("0" * 32, 1767225600, "m", "batch")
LIKELY = LogProb(token="ab", logprob=-0.5, top_logprobs=(LogProb(token="x", logprob=-1.0),))


def completion(**fields: Any) -> CompletionBody:
    return CompletionBody.model_validate({"model": "m", **fields})


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a", "a"), (["a"], "a"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2))],
)
def test_a_prompt_is_one_text_or_the_ids_of_its_tokens(prompt: Any, expected: Any) -> None:
    request = to_completion(completion(prompt=prompt))

    assert (request.prompt, request.messages, request.max_tokens) == (expected, (), 16)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [[1], [2]]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": [1], "echo": True}, "echo"),
        ({"prompt": "a", "n": 2}, "n"),
    ],
)
def test_what_a_completion_cannot_be_is_refused(given: Any, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        to_completion(completion(**given))

    assert caught.value.extra["errors"][0].field == field


def test_a_completion_has_the_offset_of_each_token() -> None:
    body = completion(prompt="so ", echo=True)
    events = [Delta(content="ab", logprobs=(LIKELY,)), Delta(content="ab", logprobs=(LIKELY,))]
    answer = completions.response_body(HEADING, fold([*events, Done()]), echoed_prompt(body))
    (choice,) = answer["choices"]

    assert (choice["text"], answer["service_tier"]) == ("so abab", "flex")
    assert choice["logprobs"] == {
        "text_offset": [3, 5],
        "token_logprobs": [-0.5, -0.5],
        "tokens": ["ab", "ab"],
        "top_logprobs": [{"x": -1.0}, {"x": -1.0}],
    }


def test_the_chunks_of_a_completion_are_the_same_text() -> None:
    chunks = completions.CompletionChunks(
        ResponseHead("0" * 32, 0, "100%", "standard"), with_usage=True, echoed_prompt="so "
    )
    done = Done(usage=Usage())
    events = [Delta(content="ab", logprobs=(LIKELY,)), Delta(thinking="hm"), done]
    data = chunks.render([Frame.of(EventId(1, n), 1.5, e) for n, e in enumerate(events)])
    told = [json.loads(line[6:]) for line in data.decode().split("\n\n")[:-2]]

    assert [chunk["model"] for chunk in told] == ["100%"] * 4
    assert [c["choices"][0]["text"] for c in told[:-1]] == ["so ", "ab", ""]
    assert told[1]["choices"][0]["logprobs"]["text_offset"] == [3]
    assert told[-1]["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    ("given", "texts", "tokens"),
    [
        ("a", ("a",), ()),
        (["a", "b"], ("a", "b"), ()),
        ([1, 2], (), ((1, 2),)),
        ([[1], [2, 3]], (), ((1,), (2, 3))),
        (list(range(5000)), (), (tuple(range(5000)),)),
    ],
)
def test_inputs_are_texts_or_ids(given: Any, texts: Any, tokens: Any) -> None:
    request = to_embed(EmbeddingBody(model="m", input=given))

    assert (request.input, request.tokens) == (texts, tokens)


def test_more_texts_than_the_original_takes_are_refused() -> None:
    with pytest.raises(ValidationError, match="2048"):
        EmbeddingBody(model="m", input=["x"] * 2049)
    with pytest.raises(Refusal, match="empty"):
        to_embed(EmbeddingBody(model="m", input=[]))


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_are_written_in_pieces_as_they_would_be_whole(encoding: Any) -> None:
    rows = [[float(n), 0.5] for n in range(150)]
    blocks = [
        Vectors(index=0, count=100, dimension=2, data=pack(rows[:100])),
        Vectors(index=100, count=50, dimension=2, data=pack(rows[100:])),
    ]
    result = fold([*blocks, Done(usage=Usage(prompt_tokens=9))])
    told = json.loads(b"".join(pieces(HEADING, result, encoding)))
    first = told["data"][149]["embedding"]

    assert told == response_body(HEADING, result, encoding)
    assert told["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert first == (rows[149] if encoding == "float" else pack([rows[149]]))


def test_an_image_s_wishes_become_the_contract_s() -> None:
    body = ImageBody(
        model="m",
        prompt="p",
        n=2,
        size="64x32",
        output_format="jpeg",
        partial_images=9,
        stream=True,
    )

    assert to_image(body, image="iVBORw0KGgo=", mask="iVBORw0KGgoA") == ImageRequest(
        model="m", prompt="p", count=2, width=64, height=32, mime_type="image/jpeg",
        partial_images=3, image="iVBORw0KGgo=", mask="iVBORw0KGgoA",
    )  # fmt: skip
    assert to_image(ImageBody(model="m", prompt="p", size="auto", partial_images=1)) == (
        ImageRequest(model="m", prompt="p")
    )


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"size": "big"}, "size"),
        ({"size": "10x10"}, "size"),
        ({"response_format": "url"}, "response_format"),
        ({"background": "transparent"}, "background"),
        ({"n": 11}, "n"),
    ],
)
def test_images_that_cannot_be_made_are_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as caught:
        to_image(ImageBody(model="m", prompt="p", **given))

    assert caught.value.extra["errors"][0].field == field


def test_previews_are_counted_for_each_image_and_the_last_event_has_the_tokens() -> None:
    events = images.ImageEvents(HEADING, ImageRequest(model="m", prompt="p"), "image_edit")
    data = base64.b64encode(b"x").decode()
    job = [
        Image(index=0, data=data, partial=True), Image(index=0, data=data),
        Image(index=1, data=data, partial=True), Image(index=1, data=data),
        Done(usage=Usage(prompt_tokens=5)),
    ]  # fmt: skip
    told = events.render([Frame.of(EventId(1, n), 1.5, e) for n, e in enumerate(job)]).decode()
    parsed = [json.loads(line[6:]) for line in told.split("\n") if line.startswith("data: ")]

    assert [each["type"] for each in parsed] == [
        "image_edit.partial_image", "image_edit.completed",
        "image_edit.partial_image", "image_edit.completed",
    ]  # fmt: skip
    assert [each.get("partial_image_index") for each in parsed] == [0, None, 0, None]
    assert parsed[-1]["usage"]["total_tokens"] == 5
    assert told.startswith("event: image_edit.partial_image\ndata: {")


def a_problem(code: str, status: int, **fields: Any) -> Problem:
    return Problem(type="t", title="T", status=status, detail="d", code=code, **fields)


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("unknown_model", 404, ("invalid_request_error", "model", "model_not_found")),
        ("context_exceeded", 400, ("invalid_request_error", None, "context_length_exceeded")),
        ("not_authenticated", 401, ("authentication_error", None, "invalid_api_key")),
        ("queue_full", 429, ("rate_limit_error", None, "rate_limit_exceeded")),
        ("quota_exhausted", 429, ("insufficient_quota", None, "insufficient_quota")),
        ("server_fault", 502, ("server_error", None, "server_fault")),
    ],
)
def test_errors_have_the_names_that_programs_know(code: str, status: int, told: Any) -> None:
    error = json.loads(encoded(a_problem(code, status)))["error"]

    assert (error["type"], error["param"], error["code"]) == told
    assert error["message"] == "d"


def test_a_wait_is_never_so_long_that_the_client_gives_up() -> None:
    full = envelope(a_problem("queue_full", 429, retryable=True, retry_after_s=3600.0), {})
    wrong = envelope(a_problem("invalid_request", 422), {"X-Fleet-Job": "j"})

    assert (full.headers["retry-after"], full.headers["x-should-retry"]) == ("119", "true")
    assert (wrong.status_code, wrong.headers["x-should-retry"]) == (400, "false")
    assert wrong.headers["x-fleet-job"] == "j"
