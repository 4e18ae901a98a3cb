"""Open WebUI itself, as PyPI has it, in front of a running fleet: chats, documents, images.

Its settings are those of docs/clients.md; what it sends in detail: test_open_webui.py.
Subjects: api_shim/openai/chat_routes.py, api_shim/cohere/routes.py.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.agents import agent, exports, snippet
from support.fleet import Fleet, fleet

pytestmark = pytest.mark.client("open-webui")
FAILS = "scripted-story:fail=context"
MODELS = {
    "nomic-embed-text": "scripted-embed",
    "bge-reranker-v2-m3": "scripted-rerank",
    "flux": "scripted-image",
}
QUIET = {
    "OFFLINE_MODE": "true", "DO_NOT_TRACK": "true", "ANONYMIZED_TELEMETRY": "false",
    "SCARF_NO_ANALYTICS": "true", "WEBUI_SECRET_KEY": "any", "IMAGE_SIZE": "64x64",
}  # fmt: skip
READY_WITHIN_S = 100


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    agent("open-webui")  # skips before a fleet is started in vain
    folder = tmp_path_factory.mktemp("webui")
    with fleet(folder, "vllm", "scripted", models=(FAILS,)) as running:
        yield running


@pytest.fixture(scope="module")
def http(at: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Somebody who is signed in at an Open WebUI that has just been installed."""
    home = tmp_path_factory.mktemp("home")
    settings = exports(snippet("open-webui", at.url))
    env = {name: MODELS.get(value, value) for name, value in settings.items()} | QUIET
    env |= {"PATH": os.environ["PATH"], "HOME": str(home), "DATA_DIR": str(home)}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [agent("open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=home,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_for(client, server, home / "log")
            person = {"name": "a", "email": "a@example.org", "password": "any-Word-1"}
            signed = client.post("/api/v1/auths/signup", json=person).json()
            client.headers["Authorization"] = f"Bearer {signed['token']}"
            yield client
    finally:
        server.kill()
        server.wait()


def _wait_for(client: httpx.Client, server: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up_at = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert server.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < give_up_at, log.read_text(errors="replace")
        time.sleep(0.2)


def ask(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hello you"}], **fields}


@pytest.mark.feature("models")
def test_it_lists_the_models_of_the_fleet(http: httpx.Client) -> None:
    names = {model["id"] for model in http.get("/api/models").json()["data"]}

    assert {"scripted-echo", "scripted-story", "scripted-embed"} <= names


@pytest.mark.feature("chat", "streams")
def test_a_chat_is_answered_whole_and_as_a_stream(http: httpx.Client) -> None:
    whole = http.post("/api/chat/completions", json=ask("scripted-echo")).json()
    lines = http.post("/api/chat/completions", json=ask("scripted-echo", stream=True)).text.split(
        "\n"
    )
    *chunks, end = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    deltas = [c["choices"][0]["delta"] for c in map(json.loads, chunks) if c.get("choices")]

    assert whole["choices"][0]["message"]["content"] == "hello you"
    assert "".join(delta.get("content") or "" for delta in deltas) == "hello you"
    assert end == "[DONE]"


@pytest.mark.feature("embeddings", "rerank")
def test_a_document_is_found_by_vectors_and_a_reranker_of_the_fleet(
    http: httpx.Client, at: Fleet
) -> None:
    texts = b"The river is wide.\n\nWhen does the office open? At nine.\n"
    sent = http.post(
        "/api/v1/files/?process_in_background=false", files={"file": ("doc.txt", texts)}
    ).json()
    asked = {"collection_name": f"file-{sent['id']}", "query": "when does the office open", "k": 1}
    found = http.post("/api/v1/retrieval/query/doc", json=asked).json()
    jobs = httpx.get(f"{at.url}/api/v1/jobs").json()["jobs"]

    assert "At nine." in found["documents"][0][0], found
    assert {"embed", "rerank"} <= {job["kind"] for job in jobs if job["status"] == "done"}


@pytest.mark.feature("images")
def test_an_image_is_made(http: httpx.Client) -> None:
    made = http.post("/api/v1/images/generations", json={"prompt": "a cat"}).json()

    assert http.get(made[0]["url"]).content.startswith(b"\x89PNG")


@pytest.mark.feature("errors")
def test_what_fails_is_told_in_the_fleets_words(http: httpx.Client) -> None:
    answer = http.post("/api/chat/completions", json=ask(FAILS))

    assert answer.status_code == 400
    assert "context" in answer.text
