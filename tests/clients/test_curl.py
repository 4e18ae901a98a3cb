"""curl, as people type it: with its content type or its own, streams, files, headers."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fleet import Fleet, fleet

CHAT = '{"model": "scripted-echo", "messages": [{"role": "user", "content": "hello you"}]%s}'
JSON = ("-H", "Content-Type: application/json")
pytestmark = [
    pytest.mark.client("curl"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH"),
]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("curl"), "ollama", "scripted") as running:
        yield running


def curl(*words: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "60", *words], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.feature("chat")
def test_a_chat_is_answered_by_both_surfaces(at: Fleet) -> None:
    openai = curl(f"{at.url}/v1/chat/completions", *JSON, "-d", CHAT % "")
    ollama = curl(f"{at.url}/api/chat", *JSON, "-d", CHAT % ', "stream": false')

    assert json.loads(openai)["choices"][0]["message"]["content"] == "hello you"
    assert json.loads(ollama)["message"]["content"] == "hello you"


@pytest.mark.feature("chat", "errors")
def test_curls_own_content_type_will_do_for_ollama_and_is_explained_elsewhere(at: Fleet) -> None:
    ollama = curl(f"{at.url}/api/chat", "-d", CHAT % ', "stream": false')
    openai = curl(f"{at.url}/v1/chat/completions", "-d", CHAT % "")

    assert json.loads(ollama)["message"]["content"] == "hello you"
    assert "send the body as application/json" in json.loads(openai)["error"]["message"]


@pytest.mark.feature("streams")
def test_streams_come_as_events_and_as_lines(at: Fleet) -> None:
    events = curl("-N", f"{at.url}/v1/chat/completions", *JSON, "-d", CHAT % ', "stream": true')
    lines = curl("-N", f"{at.url}/api/chat", "-d", CHAT % "").splitlines()

    assert events.endswith("data: [DONE]\n\n")
    assert json.loads(lines[-1])["done"]


@pytest.mark.feature("models")
def test_models_are_listed_and_headers_are_shown(at: Fleet) -> None:
    models = json.loads(curl(f"{at.url}/v1/models"))["data"]
    chat = (f"{at.url}/v1/chat/completions", *JSON, "-d", CHAT % "")
    head = curl("-D", "-", "-o", "/dev/null", *chat)

    assert "scripted-echo" in {model["id"] for model in models}
    assert "x-fleet-job: " in head.lower()
    assert curl("-I", f"{at.url}/").startswith("HTTP/1.1 200")


@pytest.mark.feature("batches")
def test_a_file_goes_up_as_a_form_and_comes_back(at: Fleet, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text("{}\n")
    form = ("-F", "purpose=batch", "-F", f"file=@{tmp_path / 'lines.jsonl'}")
    file = json.loads(curl(f"{at.url}/v1/files", *form))

    assert curl(f"{at.url}/v1/files/{file['id']}/content") == "{}\n"
    assert json.loads(curl("-X", "DELETE", f"{at.url}/v1/files/{file['id']}"))["deleted"]


@pytest.mark.feature("errors")
def test_what_curl_prints_of_an_error_says_what_to_do(at: Fleet) -> None:
    wrong = json.loads(curl(f"{at.url}/v1/chat/completions", *JSON, "-d", "{'model': 1}"))["error"]
    missing = json.loads(curl(f"{at.url}/v1/chat/completions", *JSON, "-d", "{}"))["error"]

    assert "JSON" in wrong["message"]
    assert (missing["type"], missing["param"]) == ("invalid_request_error", "model")
