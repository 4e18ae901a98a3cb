"""Files and batches through the `openai` client, current and unmodified."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from support.batches import begun, echo, ended, everything, jsonl, lines, row, said, uploaded, when
from support.fleet import Fleet, fleet

pytestmark = pytest.mark.client("openai")

ROWS = 20


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("batches")
    with fleet(
        folder, "scripted", data_dir=folder / "data", batch_max_rows=50, max_file_bytes=5 * 2**20,
        aliases={"quick-*": {"model": "scripted-story:fail=context", "backend": "scripted",
                             "fallbacks": ["scripted-echo"]}},
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def ask(at: Fleet) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{at.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.mark.feature("batches")
def test_a_file_is_uploaded_looked_at_downloaded_and_deleted(ask: OpenAI) -> None:
    data = b"one\ntwo\n" * 100_000
    file = ask.files.create(file=("näme.jsonl", io.BytesIO(data)), purpose="user_data")

    assert (file.filename, file.bytes, file.purpose) == ("näme.jsonl", len(data), "user_data")
    assert file.status == "processed"
    assert ask.files.retrieve(file.id) == file
    assert ask.files.content(file.id).read() == data
    assert ask.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        ask.files.retrieve(file.id)
    with pytest.raises(openai.NotFoundError):
        ask.files.content(file.id)


@pytest.mark.feature("batches")
def test_rows_may_name_aliases_and_tell_which_model_answered(ask: OpenAI) -> None:
    done = ended(ask, begun(ask, [echo(n, "quick-one") for n in range(3)]))
    found = lines(ask, done.output_file_id)

    assert sorted(map(said, found)) == ["n 0", "n 1", "n 2"]
    assert {"scripted-echo"} == {line["response"]["body"]["model"] for line in found}


@pytest.mark.feature("batches")
def test_files_are_listed_by_pages_and_purpose(ask: OpenAI) -> None:
    made = [ask.files.create(file=(f"{n}", b"x"), purpose="vision").id for n in range(5)]
    found = [file.id for file in ask.files.list(purpose="vision", limit=2)]
    upwards = [file.id for file in ask.files.list(purpose="vision", limit=2, order="asc")]

    assert [file for file in found if file in made] == made[::-1]  # other tests store some, too
    assert [file for file in upwards if file in made] == made


@pytest.mark.feature("batches")
def test_a_file_may_be_told_when_to_go(ask: OpenAI) -> None:
    file = ask.files.create(
        file=("a", b"x"), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert file.expires_at == file.created_at + 3600


@pytest.mark.feature("batches", "errors")
def test_a_file_that_is_too_large_is_refused_as_it_comes(ask: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="FLEET_MAX_FILE_BYTES") as error:
        ask.files.create(file=("big", b"x" * 7 * 2**20), purpose="batch")

    assert error.value.status_code == 413


@pytest.mark.parametrize("purpose", ["nonsense", "batch_output"])
def test_a_wrong_purpose_is_named(ask: OpenAI, purpose: Any) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        ask.files.create(file=("a", b"x"), purpose=purpose)

    assert error.value.param == "purpose"


@pytest.mark.feature("batches")
def test_a_batch_of_chats_is_answered(ask: OpenAI) -> None:
    # vllm production-stack local_processor.py: sleeps a second and writes "Processed".
    batch = begun(ask, [echo(n) for n in range(ROWS)])
    assert (batch.status, batch.object, batch.completion_window) == ("validating", "batch", "24h")

    done = ended(ask, batch)
    found = {line["custom_id"]: line for line in lines(ask, done.output_file_id)}

    assert done.status == "completed"
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": ROWS, "completed": ROWS, "failed": 0}
    assert done.error_file_id is None
    assert {said(found[f"r{n}"]) for n in range(ROWS)} == {f"n {n}" for n in range(ROWS)}
    assert found["r3"]["error"] is None
    assert found["r3"]["response"]["status_code"] == 200
    assert found["r3"]["response"]["body"]["service_tier"] == "flex"
    assert done.usage is not None
    assert done.usage.total_tokens == ROWS * 4
    assert done.in_progress_at
    assert done.finalizing_at
    assert done.completed_at
    assert ask.files.retrieve(str(done.output_file_id)).purpose == "batch_output"


def test_a_row_names_the_fields_that_nothing_was_done_with(ask: OpenAI) -> None:
    body = {**echo(0)["body"], "verbosity": "low", "logit_bias": {"1": 1}, "seed": None}
    batch = begun(ask, [row("named", **body), echo(1)])

    done = ended(ask, batch)
    found = {line["custom_id"]: line["response"] for line in lines(ask, done.output_file_id)}

    assert found["named"]["headers"] == {"X-Fleet-Ignored": "verbosity, logit_bias"}
    assert "headers" not in found["r1"]


BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "scripted-echo", "input": "once upon a time"},
    "/v1/embeddings": {"model": "scripted-embed", "input": ["one", "two"]},
    "/v1/completions": {"model": "scripted-echo", "prompt": "once upon a time"},
    "/v1/rerank": {"model": "scripted-rerank", "query": "a b", "documents": ["c", "a b"]},
    "/v1/images/generations": {"model": "scripted-image", "prompt": "a cat", "size": "64x64"},
}


@pytest.mark.parametrize("endpoint", BODIES)
@pytest.mark.feature("batches")
def test_other_endpoints_are_batched_as_well(ask: OpenAI, endpoint: str) -> None:
    done = ended(ask, begun(ask, [row("a", endpoint, **BODIES[endpoint])], endpoint))
    (line,) = lines(ask, done.output_file_id)
    body = line["response"]["body"]

    match endpoint:
        case "/v1/embeddings":
            assert [len(each["embedding"]) for each in body["data"]] == [64, 64]
        case "/v1/responses":
            assert (body["object"], body["status"]) == ("response", "completed")
            assert body["output"][0]["content"][0]["text"] == "once upon a time"
        case "/v1/rerank":
            assert [each["index"] for each in body["results"]] == [1, 0]
        case "/v1/completions":
            assert body["choices"][0]["text"] == "once upon a time"
        case _:
            assert body["data"][0]["b64_json"]


@pytest.mark.feature("batches")
def test_what_fails_stands_in_the_error_file_and_the_rest_runs(ask: OpenAI) -> None:
    rows = [
        echo(0),
        echo(1, "scripted-story:fail=context"),
        row("no-messages", model="scripted-echo"),
        row("n-is-2", model="scripted-echo", n=2, messages=[{"role": "user", "content": "a"}]),
    ]
    done = ended(ask, begun(ask, rows))
    failed = {line["custom_id"]: line["response"] for line in lines(ask, done.error_file_id)}

    assert done.status == "completed"
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 4, "completed": 1, "failed": 3}
    assert [line["custom_id"] for line in lines(ask, done.output_file_id)] == ["r0"]
    assert {id: response["status_code"] for id, response in failed.items()} == {
        "r1": 400, "no-messages": 400, "n-is-2": 400,
    }  # fmt: skip
    assert failed["r1"]["body"]["error"]["code"] == "context_length_exceeded"
    assert "messages" in failed["no-messages"]["body"]["error"]["message"]


@pytest.mark.parametrize(
    ("model", "status", "code", "words"),
    [
        ("scripted-stori", 404, "model_not_found", "GET /v1/models"),
        ("scripted-embed", 400, "wrong_kind", "is for embed jobs, not for chat"),
    ],
)
def test_a_row_whose_model_cannot_be_had_says_which_of_the_reasons(
    ask: OpenAI, model: str, status: int, code: str, words: str
) -> None:
    rows = [row("bad", model=model, messages=[{"role": "user", "content": "x"}]), echo(1)]
    done = ended(ask, begun(ask, rows))
    (line,) = lines(ask, done.error_file_id)
    error = line["response"]["body"]["error"]

    assert (line["response"]["status_code"], error["code"]) == (status, code)
    assert words in error["message"]
    assert "/api" not in error["message"]


def test_a_file_that_is_no_input_fails_with_the_lines_that_are_wrong(ask: OpenAI) -> None:
    good = jsonl([echo(0)])
    wrong = [
        {**echo(0)},
        {**echo(2), "method": "GET"},
        {**echo(3), "url": "/v1/embeddings"},
        {"custom_id": "x", "method": "POST", "url": "/v1/chat/completions"},
        {**echo(4), "custom_id": ""},
    ]
    data = good + b"{no json\n\n" + jsonl(wrong)
    file = ask.files.create(file=("in.jsonl", data), purpose="batch")
    done = ended(
        ask,
        ask.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        ),
    )

    assert done.status == "failed"
    assert done.failed_at
    assert done.errors is not None
    assert [(each.line, each.code, each.param) for each in done.errors.data or ()] == [
        (2, "invalid_json_line", None),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "invalid_method", "method"),
        (6, "url_mismatch", "url"),
        (7, "missing_required_parameter", "body"),
        (8, "invalid_request", "custom_id"),
    ]


@pytest.mark.parametrize(
    ("data", "code"), [(b"\n \n", "empty_file"), (jsonl(map(echo, range(51))), "too_many_tasks")]
)
def test_an_empty_or_endless_file_fails(ask: OpenAI, data: bytes, code: str) -> None:
    file = ask.files.create(file=("in.jsonl", data), purpose="batch")
    done = ended(
        ask,
        ask.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        ),
    )

    assert done.status == "failed"
    assert done.errors is not None
    assert [each.code for each in done.errors.data or ()][:1] == [code]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (jsonl([echo(0), echo(1)]).decode().encode("utf-16"), "save it as UTF-8"),
        (jsonl([echo(0), echo(1)]).replace(b"\n", b"\r"), "carriage return alone"),
    ],
)
def test_a_file_in_another_encoding_says_which_is_wanted(
    ask: OpenAI, data: bytes, why: str
) -> None:
    file = ask.files.create(file=("in.jsonl", data), purpose="batch")
    done = ended(
        ask,
        ask.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        ),
    )

    assert done.errors is not None
    (first, *_) = done.errors.data or ()
    assert (first.line, first.code) == (1, "invalid_json_line")
    assert why in str(first.message)


def test_lines_without_a_last_line_end_and_with_a_mark_are_read(ask: OpenAI) -> None:
    data = b"\xef\xbb\xbf" + jsonl([echo(0), echo(1)]).rstrip().replace(b"\n", b"\r\n")
    file = ask.files.create(file=("in.jsonl", data), purpose="batch")
    batch = ask.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    assert everything(ask, ended(ask, batch)) == {"r0": 1, "r1": 1}


WRONG: dict[str, dict[str, Any]] = {
    "endpoint": {"endpoint": "/v1/moderations"},
    "completion_window": {"completion_window": "soon"},
    "input_file_id": {"input_file_id": "nothing"},
}


@pytest.mark.parametrize("param", WRONG)
@pytest.mark.feature("batches", "errors")
def test_a_batch_that_cannot_be_is_refused(ask: OpenAI, param: str) -> None:
    good: dict[str, Any] = {
        "input_file_id": uploaded(ask, [echo(0)]),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    with pytest.raises(openai.BadRequestError) as error:
        ask.batches.create(**(good | WRONG[param]))

    assert error.value.param == param


@pytest.mark.feature("batches", "errors")
def test_a_file_that_is_not_there_is_not_found(ask: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        ask.batches.create(
            input_file_id="file-" + "0" * 32,
            endpoint="/v1/embeddings",
            completion_window="24h",
        )
    with pytest.raises(openai.NotFoundError):
        ask.batches.retrieve("batch_" + "0" * 32)


@pytest.mark.feature("batches")
def test_batches_are_listed_newest_first(ask: OpenAI) -> None:
    made = [begun(ask, [echo(n)]).id for n in range(3)]
    found = [batch.id for batch in ask.batches.list(limit=2)]

    assert found[:3] == made[::-1]


@pytest.mark.feature("batches", "cancel")
def test_a_cancelled_batch_keeps_what_was_done(ask: OpenAI) -> None:
    rows = [echo(n) for n in range(5)] + [
        echo(n, "scripted-story:chunks=600,rate=10") for n in range(5, 10)
    ]
    batch = begun(ask, rows)
    when(ask, batch, completed=5)
    first, second = ask.batches.cancel(batch.id), ask.batches.cancel(batch.id)
    done = ended(ask, batch)

    assert (first.status, second.status) == ("cancelling", "cancelling")
    assert first.cancelling_at == done.cancelling_at
    assert done.status == "cancelled"
    assert done.cancelled_at
    assert {line["custom_id"] for line in lines(ask, done.output_file_id)} == {
        f"r{n}" for n in range(5)
    }
    assert {line["error"]["code"] for line in lines(ask, done.error_file_id)} == {"batch_cancelled"}
    assert set(everything(ask, done).values()) == {1}
    assert len(everything(ask, done)) == 10


def test_a_batch_that_has_ended_cannot_be_cancelled(ask: OpenAI) -> None:
    done = ended(ask, begun(ask, [echo(0)]))
    with pytest.raises(openai.ConflictError, match="completed"):
        ask.batches.cancel(done.id)


@pytest.mark.feature("batches")
def test_a_batch_whose_window_ends_keeps_what_was_done(ask: OpenAI) -> None:  # warmbly #333
    rows = [echo(0), echo(1, "scripted-story:chunks=600,rate=10")]
    done = ended(ask, begun(ask, rows, window="3s"))
    (late,) = lines(ask, done.error_file_id)

    assert done.status == "expired"
    assert done.expired_at
    assert [said(line) for line in lines(ask, done.output_file_id)] == ["n 0"]
    assert (late["custom_id"], late["response"]) == ("r1", None)
    assert late["error"]["code"] == "batch_expired"


@pytest.mark.feature("batches")
def test_a_batch_goes_on_although_its_input_was_deleted(ask: OpenAI) -> None:
    batch = begun(ask, [echo(n) for n in range(ROWS)])
    ask.files.delete(batch.input_file_id)
    done = ended(ask, batch)

    assert done.status == "completed"
    assert len(everything(ask, done)) == ROWS


@pytest.mark.feature("batches")
def test_notes_come_back(ask: OpenAI) -> None:
    batch = ask.batches.create(
        input_file_id=uploaded(ask, [echo(0)]),
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"night": "1"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    done = ended(ask, batch)
    output = ask.files.retrieve(str(done.output_file_id))

    assert done.metadata == {"night": "1"}
    assert output.expires_at == output.created_at + 3600


def test_rows_are_forgotten_by_redis_once_they_are_answered(at: Fleet, ask: OpenAI) -> None:
    done = ended(ask, begun(ask, [echo(n) for n in range(ROWS)]))
    (first, *_) = lines(ask, done.output_file_id)

    assert "job_not_found" in json.dumps(at.job(first["response"]["request_id"]))
