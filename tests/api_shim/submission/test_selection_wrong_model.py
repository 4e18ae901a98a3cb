"""A model that cannot be had: three different answers, on every surface in its own words."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.shim import problem, stage

from contract.roster import Capability, ModelReport

CHATS = ModelReport(name="qwen3:latest", traits=("chat",), lacks=("embed",))
EMBEDS = ModelReport(name="all-minilm:latest", traits=("embed",), lacks=("chat",))
LOCAL: tuple[Capability, ...] = ("embed",)
HOSTED: tuple[Capability, ...] = ("chat", "embed")
SAYING = [{"role": "user", "content": "x"}]


async def announce(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("box", CHATS, EMBEDS)
        await at.announce("local", "aa-embed", "minilm", capabilities=LOCAL)
        await at.announce("hosted", "gpt", capabilities=HOSTED)


@pytest.fixture
def at(shim: str, redis_url: str) -> Iterator[httpx.Client]:
    """A box of Ollama's, a backend that only embeds, and a hosted one with nothing to manage."""
    asyncio.run(announce(shim, redis_url))
    with httpx.Client(base_url=shim, timeout=10) as http:
        yield http


def asked(at: httpx.Client, path: str, model: str) -> httpx.Response:
    """What a call of this path is answered that wants a chat, or the vectors of a text."""
    body: dict[str, Any] = {"model": model, "stream": False}
    if path.endswith(("embed", "embeddings")):
        body = {"model": model, "input": ["x"], "prompt": "x"}
        body.pop("prompt" if path != "/api/embeddings" else "input")
    elif path == "/v1/responses":
        body["input"] = "x"
    elif path in {"/v1/completions", "/api/generate"}:
        body["prompt"] = "x"
    else:
        body["messages"] = SAYING
    if path.startswith("/api/v1"):
        body.pop("stream", None)
    return at.post(path, json=body)


OPENAI_CHATS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


@pytest.mark.parametrize("path", OPENAI_CHATS)
def test_a_model_of_no_backend_is_404_in_the_format_of_v1(at: httpx.Client, path: str) -> None:
    answer = asked(at, path, "quen3")
    error = answer.json()["error"]

    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "close names: qwen3:latest" in error["message"]
    assert "GET /v1/models" in error["message"]
    assert "/api" not in error["message"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/show"])
def test_a_model_of_no_backend_is_404_in_the_format_of_ollama(at: httpx.Client, path: str) -> None:
    answer = asked(at, path, "quen3")
    error = answer.json()["error"]

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert error.startswith("model not found, try pulling it first: ")
    assert "close names: qwen3:latest" in error
    assert "`ollama pull quen3`" in error
    assert "GET /" not in error


def test_a_model_of_no_backend_is_404_natively(at: httpx.Client) -> None:
    told = problem(asked(at, "/api/v1/jobs/chat", "quen3"), 404, "unknown_model")

    assert told["matches"] == ["qwen3:latest"]
    assert "GET /api/v1/models" in told["detail"]


@pytest.mark.parametrize("path", ["/api/v1/jobs/chat", "/v1/chat/completions", "/api/chat"])
def test_a_name_that_is_not_close_is_not_offered(at: httpx.Client, path: str) -> None:
    answer = asked(at, path, "zephyr")

    assert answer.status_code == 404
    assert "close names" not in answer.text
    assert answer.json().get("matches") in ([], None)


@pytest.mark.parametrize("path", OPENAI_CHATS)
@pytest.mark.parametrize("model", ["all-minilm", "minilm"])
def test_a_model_of_another_kind_is_400_in_words_of_v1(
    at: httpx.Client, path: str, model: str
) -> None:
    answer = asked(at, path, model)
    error = answer.json()["error"]

    assert (answer.status_code, error["code"], error["param"]) == (400, "wrong_kind", "model")
    assert "is for embed jobs, not for chat; models for chat: qwen3:latest" in error["message"]


@pytest.mark.parametrize(
    ("path", "model", "verb"),
    [
        ("/api/chat", "minilm", "chat"),
        ("/api/chat", "all-minilm", "chat"),
        ("/api/generate", "minilm", "generate"),
        ("/api/embed", "qwen3", "embeddings"),
        ("/api/embeddings", "qwen3", "embeddings"),
    ],
)
def test_a_model_of_another_kind_is_400_in_words_of_ollama(
    at: httpx.Client, path: str, model: str, verb: str
) -> None:
    answer = asked(at, path, model)

    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_kind")
    assert answer.json()["error"].startswith(f'"{model}" does not support {verb}: ')


def test_a_model_of_another_kind_is_400_natively_with_models_that_do_it(at: httpx.Client) -> None:
    chat = problem(asked(at, "/api/v1/jobs/chat", "minilm"), 400, "wrong_kind")
    embed = problem(asked(at, "/api/v1/jobs/embed", "qwen3"), 400, "wrong_kind")

    assert chat["matches"] == ["qwen3:latest"]
    assert embed["matches"] == ["all-minilm:latest"]
    assert "is for chat jobs, not for embed" in embed["detail"]


def test_a_model_of_a_named_backend_is_not_for_that_kind_either(at: httpx.Client) -> None:
    body = {"model": "all-minilm", "messages": SAYING, "backend": "box"}
    told = problem(at.post("/api/v1/jobs/chat", json=body), 400, "wrong_kind")

    assert "is for embed jobs" in told["detail"]


@pytest.mark.parametrize("kind", ["show", "load", "unload", "delete", "copy", "create"])
def test_a_backend_that_cannot_do_the_verb_is_named_with_it(at: httpx.Client, kind: str) -> None:
    body = {"model": "gpt"}
    body |= {"destination": "n"} if kind == "copy" else {}
    body |= {"source": "gpt"} if kind == "create" else {}
    answer = at.post(f"/api/v1/jobs/{kind}", json=body)
    told = problem(answer, 400, "not_supported")

    assert told["detail"] == f"Backend hosted cannot do {kind}; it can do chat, embed."
    assert told["capabilities"] == ["chat", "embed"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/generate", {"model": "gpt", "keep_alive": 0}),
        ("POST", "/api/chat", {"model": "gpt", "messages": [], "keep_alive": 0}),
        ("POST", "/api/copy", {"source": "gpt", "destination": "n"}),
        ("DELETE", "/api/delete", {"model": "gpt"}),
        ("POST", "/api/create", {"model": "n", "from": "gpt"}),
    ],
)
def test_a_verb_that_the_backend_lacks_is_400_for_ollama_clients(
    at: httpx.Client, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = at.request(method, path, json=body)

    assert (answer.status_code, answer.json()["code"]) == (400, "not_supported")
    assert answer.json()["error"].startswith("Backend hosted cannot do ")


@pytest.mark.parametrize("path", ["/api/pull", "/api/delete", "/api/copy"])
def test_a_pull_is_not_advised_where_it_would_not_help(at: httpx.Client, path: str) -> None:
    body = {"model": "zephyr", "source": "zephyr", "destination": "n", "backend": "nobody"}
    by_path = {"/api/pull": {"model": "zephyr", "backend": "nobody"}}
    method = "DELETE" if path == "/api/delete" else "POST"
    if path == "/api/copy":
        body = {"source": "zephyr", "destination": "n"}
    if path == "/api/delete":
        body = {"model": "zephyr"}
    answer = at.request(method, path, json=by_path.get(path, body))

    assert answer.status_code == 404
    assert "try pulling it first" not in answer.text


@pytest.mark.parametrize("path", ["/api/v1/jobs/chat", "/v1/chat/completions"])
async def test_a_fleet_that_pulls_nothing_does_not_advise_it(
    path: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("hosted", "gpt", capabilities=HOSTED)
        answer = await at.http.post(path, json={"model": "zephyr", "messages": SAYING})

        assert answer.status_code == 404
        assert "pull" not in answer.text


def test_one_model_is_looked_up_as_it_is_found_for_a_chat(at: httpx.Client) -> None:
    listed = at.get("/v1/models/qwen3:latest")
    short = at.get("/v1/models/qwen3")
    missing = at.get("/v1/models/quen3")

    assert short.json() == listed.json()
    assert missing.status_code == 404
    assert "close names: qwen3:latest" in missing.json()["error"]["message"]


def test_lists_put_models_that_chat_first(at: httpx.Client) -> None:
    by_openai = (at.get("/v1/models")).json()["data"]
    by_ollama = (at.get("/api/tags")).json()["models"]
    natively = (at.get("/api/v1/models")).json()["models"]

    expected = ["gpt", "qwen3:latest", "aa-embed", "all-minilm:latest", "minilm"]
    assert [model["id"] for model in by_openai] == expected
    assert [model["name"] for model in by_ollama] == expected
    assert [model["name"] for model in natively] == expected


def test_a_model_without_traits_completes_and_one_that_embeds_does_not(
    at: httpx.Client,
) -> None:
    tags = {
        model["name"]: model["capabilities"] for model in (at.get("/api/tags")).json()["models"]
    }
    shown = (at.post("/api/show", json={"model": "gpt"})).json()

    assert "completion" in tags["gpt"]
    assert "completion" in shown["capabilities"]
    assert tags["minilm"] == ["embedding"]
