"""Every error answer of every server has its class, and shows no secret."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import errors
from contract.errors import (
    BackendError,
)
from workers.backends.http.error_table import (
    BUSY,
    LOADING,
    Phrase,
    error_from,
    error_in,
    retry_after_s,
)

WORDS_TOO_MANY = b'{"error":"the prompt is longer than the context length currently available"}'
ROWS = [
    (
        503,
        b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}',
        "ModelLoading",
    ),
    (
        503,
        b'{"error":"server busy, please try again.  maximum pending requests exceeded"}',
        "BackendBusy",
    ),
    (
        503,
        b'{"src":"llama-swap","error":{"message":"process not ready","code":"x"}}',
        "ModelLoading",
    ),
    (
        429,
        b'{"error":{"message":"slow","type":"requests","code":"rate_limit_exceeded"}}',
        "BackendBusy",
    ),
    (429, b'{"error":{"message":"pay","type":"insufficient_quota","code":"x"}}', "QuotaExhausted"),
    (404, b'{"error":"model \'x\' not found"}', "ModelMissing"),
    (404, b'{"error":"model \\"x\\" not found, try pulling it first"}', "ModelMissing"),
    (404, b'{"error":{"message":"The model `x` does not exist.","code":404}}', "ModelMissing"),
    (400, b'{"error":{"message":"model \'x\' not found","code":400}}', "ModelMissing"),
    (404, b'{"error":{"message":"no","code":"model_not_found"}}', "ModelMissing"),
    (404, b'{"detail":"Not Found"}', "BadEndpoint"),
    (405, b"", "BadEndpoint"),
    (302, b"", "BadEndpoint"),
    (200, b'{"error":"Unexpected endpoint or method. (GET /x)"}', "BadEndpoint"),
    (200, b"<!DOCTYPE html><title>Login</title>", "BadEndpoint"),
    (400, WORDS_TOO_MANY, "ContextExceeded"),
    (500, b'{"error":"write /models/blobs/x-partial: no space left on device"}', "DiskFull"),
    (0, b'{"error":"open /models/y: no space left on device"}', "DiskFull"),
    (507, b"", "DiskFull"),
    (
        400,
        b'{"error":{"code":400,"message":"m","type":"exceed_context_size_error"}}',
        "ContextExceeded",
    ),
    (400, b'{"error":{"message":"m","code":"context_length_exceeded"}}', "ContextExceeded"),
    (
        400,
        b'{"error":{"message":"This model\'s maximum context length is 8 tokens."}}',
        "ContextExceeded",
    ),
    (
        500,
        b'{"error":{"code":500,"message":"input (9 tokens) is too large to process"}}',
        "InputTooLarge",
    ),
    (413, b"too big", "InputTooLarge"),
    (
        404,
        (
            b'{"error":{"code":404,"message":"models/x is not found for API version v1beta,'
            b' or is not supported for generateContent.","status":"NOT_FOUND"}}'
        ),
        "ModelMissing",
    ),
    (
        404,
        (
            b'[{"error":{"code":404,"message":"Publisher Model `projects/p/models/x` was not'
            b' found or your project does not have access to it.","status":"NOT_FOUND"}}]'
        ),
        "ModelMissing",
    ),
    (
        400,
        (
            b'{"error":{"code":400,"message":"The input token count (9) exceeds the maximum'
            b' number of tokens allowed (8).","status":"INVALID_ARGUMENT"}}'
        ),
        "ContextExceeded",
    ),
    (504, b'{"error":{"code":504,"message":"late","status":"DEADLINE_EXCEEDED"}}', "ServerFault"),
    (
        403,
        b'{"error":{"code":403,"message":"no","status":"PERMISSION_DENIED"}}',
        "AuthenticationRefused",
    ),
    (400, b'{"error":"\\"x\\" does not support thinking"}', "NotSupported"),
    (501, b'{"error":{"message":"m","type":"not_supported_error"}}', "NotSupported"),
    (401, b'{"error":"Unauthorized"}', "AuthenticationRefused"),
    (403, b"{}", "AuthenticationRefused"),
    (500, b'{"error":"model runner has unexpectedly stopped"}', "ServerFault"),
    (502, b"<html><head><title>502 Bad Gateway</title></head></html>", "ServerFault"),
    (504, b"", "ServerFault"),
    (400, b'{"error":{"message":"m","code":"content_filter"}}', "Refused"),
    (400, b'{"error":"temperature must be a number"}', "BackendRejected"),
    (422, b'{"detail":[{"msg":"field required"}]}', "BackendRejected"),
]


SAID = '{"error":{"message":"%s"}}'


@pytest.mark.parametrize("status", [0, 429, 500, 503])
@pytest.mark.parametrize("phrase", [*LOADING, *BUSY], ids=lambda phrase: phrase.words)
def test_busy_words_mean_busy_with_any_status(phrase: Phrase, status: int) -> None:
    error = error_from(status, SAID % f"Sorry: {phrase.words.upper()}, friend")

    assert type(error) is (errors.ModelLoading if phrase in LOADING else errors.BackendBusy)
    assert (error.retryable, error.scope) == (True, "request")


@pytest.mark.parametrize(
    ("status", "words", "name"),
    [
        (500, "model limit reached, try again later", "BackendBusy"),
        (409, "another request holds the model, try again", "BackendBusy"),
        (409, "a model of that name exists", "BackendRejected"),
        (425, "", "BackendBusy"),
        (529, "", "BackendBusy"),
        (500, "an unexpected error occurred, please try again later", "ServerFault"),
        (400, "the prompt 'why is my server busy' has no stop", "BackendRejected"),
    ],
)
def test_words_decide_if_a_status_is_ambiguous(status: int, words: str, name: str) -> None:
    assert getattr(errors, name) is type(error_from(status, SAID % words))


@pytest.mark.parametrize(
    ("status", "scope"),
    [(500, "model"), (502, "model"), (200, "model"), (0, "model"), (400, "request")],
)
def test_a_fault_is_the_models_also_inside_a_stream_of_status_200(status: int, scope: str) -> None:
    assert error_from(status, SAID % "out of memory").scope == scope
    assert error_from(status, '{"error":{"code":500,"message":"m"}}').scope == scope


@pytest.mark.parametrize(("status", "body", "name"), ROWS)
def test_every_error_of_the_wire_notes_has_its_class(status: int, body: bytes, name: str) -> None:
    assert getattr(errors, name) is type(error_from(status, body))


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ({"error": "pull model manifest: file does not exist"}, "ModelMissing"),
        ({"error": "an error was encountered while running the model"}, "ServerFault"),
        (
            {"error": {"code": 400, "message": "bad", "type": "invalid_request_error"}},
            "BackendRejected",
        ),
        ({"error": "internal_error", "message": "scripted"}, "ServerFault"),
        ({"code": 500, "message": "old", "type": "server_error"}, "ServerFault"),
        ({"StatusCode": 429, "Status": "429", "error": "slow"}, "BackendBusy"),
        ("just words", "ServerFault"),
        (
            {"error": "unauthorized", "signin_url": "https://x", "code": 401},
            "AuthenticationRefused",
        ),
    ],
)
def test_an_error_inside_a_stream_has_its_class_too(answer: object, name: str) -> None:
    assert getattr(errors, name) is type(error_in(answer))


@given(st.integers(0, 700), st.binary())
def test_no_answer_is_without_an_error_class(status: int, body: bytes) -> None:
    error = error_from(status, body)

    assert isinstance(error, BackendError)
    assert len(error.message) < 600


def test_a_message_that_is_cut_off_shows_no_part_of_a_key() -> None:
    key = "vllm-key-0123456789"
    found = error_in({"error": f"{'x' * 490} {key} is wrong"}, status=500, secrets=[key])

    assert "vllm" not in found.message


def test_an_html_page_is_named_by_its_title() -> None:
    error = error_from(502, b"<html><title> Bad Gateway </title>" + b"x" * 9000)

    assert error.message == "an HTML page titled 'Bad Gateway' (HTTP 502)"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_retry_delay_of_a_backend_is_read(
    headers: dict[str, str] | None, expected: float | None
) -> None:
    assert expected == retry_after_s(headers)


def test_the_wait_may_be_a_date() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    assert 55 < (retry_after_s({"retry-after": at}) or 0) <= 60
