"""What Open WebUI sends to servers of OpenAI's and Ollama's shape, and how it reads the answers.

Source: open-webui/open-webui, backend/open_webui/routers/openai.py and ollama.py, utils/payload.py,
retrieval/utils.py, retrieval/models/external.py. The product itself runs in
test_open_webui_server.py.
"""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from support.fleet import Fleet, fleet

pytestmark = pytest.mark.client("open-webui")

MODEL = "scripted-echo"
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer sk-anything",
    "X-OpenWebUI-User-Name": "A%20B",
    "X-OpenWebUI-User-Id": "1",
    "X-OpenWebUI-User-Email": "a@example.org",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "5f0c",
}
SYSTEM = {"role": "system", "content": "Be brief."}
PARAMS = {"temperature": 0.8, "top_p": 0.9, "max_tokens": 500, "seed": 1, "stop": ["END"]}
OPTIONS = {"temperature": 0.8, "num_ctx": 4096, "num_predict": 500, "repeat_penalty": 1.1}
TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the web.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("webui"), "ollama", "scripted") as running:
        yield running


@pytest.fixture
def http(at: Fleet) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=at.url, headers=HEADERS, timeout=60) as client:
        yield client


def streamed(http: httpx.Client, path: str, body: dict[str, Any]) -> tuple[str, list[str]]:
    """Content type and lines of an answer; the body goes out as text, as it does there."""
    with http.stream("POST", path, content=json.dumps(body)) as response:
        assert response.status_code == 200, response.read()
        return response.headers["content-type"], [line for line in response.iter_lines() if line]


@pytest.mark.feature("models")
def test_a_connection_is_verified_and_its_models_listed(http: httpx.Client) -> None:
    models = http.get("/v1/models").json()

    assert models["object"] == "list"
    assert MODEL in {model["id"] for model in models["data"]}
    assert http.get("/api/version").json()["version"]


@pytest.mark.feature("streams", "vision")
def test_a_chat_streams_with_its_usage_at_the_end(http: httpx.Client) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    asked = {"role": "user", "content": [{"type": "text", "text": "look here"}, picture]}
    body = {
        "stream": True, "model": MODEL, "messages": [SYSTEM, asked], **PARAMS,
        "stream_options": {"include_usage": True}, "background_tasks": {"title_generation": True},
        "chat_id": "5f0c", "session_id": "s", "id": "m", "features": {"web_search": False},
    }  # fmt: skip
    content_type, lines = streamed(http, "/v1/chat/completions", body)
    *chunks, end = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    told = [json.loads(chunk) for chunk in chunks]

    assert content_type.startswith("text/event-stream")
    assert end == "[DONE]"
    words = [c["choices"][0]["delta"].get("content") or "" for c in told if c["choices"]]
    assert "".join(words) == "look here [images: 1]"
    assert told[-1]["usage"]["completion_tokens"] == 3


@pytest.mark.feature("chat")
def test_a_title_is_made_without_a_stream(http: httpx.Client) -> None:
    body = {
        "model": MODEL, "messages": [{"role": "user", "content": "A title"}], "stream": False,
        "max_completion_tokens": 1000,
    }  # fmt: skip
    answer = http.post("/v1/chat/completions", content=json.dumps(body)).json()

    assert answer["choices"][0]["message"]["content"] == "A title"


@pytest.mark.feature("tools")
def test_tools_are_called_by_their_function(http: httpx.Client) -> None:
    body = {
        "model": "scripted-tools", "messages": [{"role": "user", "content": "find x"}],
        "stream": True, "tools": [TOOL],
    }  # fmt: skip
    _, lines = streamed(http, "/v1/chat/completions", body)
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    calls = [call for c in told for call in c["choices"][0]["delta"].get("tool_calls") or ()]

    assert calls[0]["index"] == 0
    assert calls[0]["function"]["name"] == "search"
    arguments = "".join(call["function"].get("arguments", "") for call in calls)
    assert json.loads(arguments)["query"] == "find x"


@pytest.mark.feature("embeddings")
def test_documents_become_vectors_as_lists_of_numbers(http: httpx.Client) -> None:
    body = json.dumps({"input": ["one", "two"], "model": "scripted-embed"})
    openai = http.post("/v1/embeddings", content=body).json()["data"]
    ollama = http.post("/api/embed", content=body).json()["embeddings"]

    assert [row["embedding"] for row in openai] == [pytest.approx(row) for row in ollama]
    assert len(ollama) == 2


@pytest.mark.feature("rerank")
def test_an_external_reranker_orders_documents(http: httpx.Client) -> None:
    """RAG_RERANKING_ENGINE=external, RAG_EXTERNAL_RERANKER_URL=<fleet>/v1/rerank.

    Source: backend/open_webui/retrieval/models/external.py; the scores are read by `index`.
    """
    body = {
        "model": "scripted-rerank", "query": "a b", "documents": ["c", "a b", "a"], "top_n": 3,
    }  # fmt: skip
    results = http.post("/v1/rerank", json=body).json()["results"]
    by_index = sorted(results, key=lambda each: each["index"])

    assert [each["relevance_score"] for each in by_index] == [0.0, 1.0, 0.5]


@pytest.mark.feature("images")
def test_a_picture_is_made(http: httpx.Client) -> None:
    body = {
        "model": "scripted-image", "prompt": "a cat", "n": 1, "size": "64x64",
        "response_format": "b64_json",
    }  # fmt: skip
    made = http.post("/v1/images/generations", content=json.dumps(body)).json()

    assert base64.b64decode(made["data"][0]["b64_json"]).startswith(b"\x89PNG")


@pytest.mark.feature("models")
def test_the_models_of_an_ollama_are_joined_with_those_in_memory(http: httpx.Client) -> None:
    tags = {model["model"]: model for model in http.get("/api/tags").json()["models"]}
    http.post("/api/chat", content=json.dumps({"model": MODEL, "messages": [], "stream": False}))
    loaded = http.get("/api/ps").json()["models"]

    assert tags[MODEL]["name"] == MODEL
    assert all(datetime.fromisoformat(model["expires_at"]).timestamp() for model in loaded)


@pytest.mark.feature("streams", "vision")
def test_a_chat_with_an_ollama_streams_lines(http: httpx.Client) -> None:
    asked = {"role": "user", "content": "look here", "images": [PIXEL]}
    body = {
        "model": MODEL, "messages": [SYSTEM, asked], "stream": True, "options": OPTIONS,
        "keep_alive": "5m",
    }  # fmt: skip
    content_type, lines = streamed(http, "/api/chat", body)
    *parts, last = map(json.loads, lines)

    assert content_type.startswith("application/x-ndjson")
    assert "".join(part["message"]["content"] for part in parts) == "look here [images: 1]"
    assert last["done"]
    assert last["eval_count"] == 3


@pytest.mark.feature("errors")
def test_an_error_is_where_it_is_looked_for(http: httpx.Client) -> None:
    body = json.dumps({"model": "nobody-has-this", "messages": [SYSTEM], "stream": True})
    openai = http.post("/v1/chat/completions", content=body)
    ollama = http.post("/api/chat", content=body)

    assert "nobody-has-this" in openai.json()["error"]["message"]
    assert "nobody-has-this" in ollama.json()["error"]
    assert (openai.status_code, ollama.status_code) == (404, 404)
