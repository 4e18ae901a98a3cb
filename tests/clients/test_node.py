"""Packages of npm (openai, ai, ollama) against a fleet, in one script (node/clients.mjs)."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fleet import Fleet, fleet
from support.node import SOURCE, node_folder
from support.up import wait_until

MODELS = (
    "scripted-tools:calls=2",
    "scripted-story:fail=error:3",
    "scripted-story:chunks=400,rate=20",
)
CAME = {
    "openai_chat": ["hello you", "stop", 2],
    "openai_stream": ["hello you", 2],
    "openai_tools": [["look", "hello you"], ["look", "hello you"]],
    "openai_structured": {"query": "hello", "number": 0},
    "openai_embeddings": [[64, "number"], [64, "number"]],
    "openai_models": [True, "scripted-echo"],
    "openai_image": "PNG",
    "openai_responses": ["hello you", "response.completed"],
    "openai_files": ["{}\n", True],
    "openai_error": [True, "model_not_found", "model"],
    "openai_broken_stream": [True, True],
    "ai_text": ["hello you", "stop", 2],
    "ai_stream": ["hello you", "stop", 2],
    "ai_thoughts": True,
    "ai_tools": [2, ["found hello you"]],
    "ai_object": {"query": "hello", "number": 0},
    "ai_embeddings": [20, 64],
    "ai_image": "image/png",
    "ai_responses": ["hello you", "stop"],
    "ai_error": [True, 404, False],
    "ollama_chat": ["hello you", 2],
    "ollama_stream": ["hello you", True],
    "ollama_tools": [["look", "hello you"]],
    "ollama_structured": {"query": "hello", "number": 0},
    "ollama_thoughts": True,
    "ollama_embeddings": [64, 64],
    "ollama_models": [True, True],
    "ollama_error": [404, True],
}
CLIENTS = {"openai": "openai-npm", "ollama": "ollama-npm", "ai": "ai-compatible"}
FEATURES = {
    "chat": ("chat",), "text": ("chat",), "stream": ("streams",), "tools": ("tools",),
    "structured": ("schema",), "object": ("schema",), "thoughts": ("thinking",),
    "embeddings": ("embeddings",), "models": ("models",), "image": ("images",),
    "responses": ("responses", "streams"), "files": ("batches",), "error": ("errors",),
    "broken_stream": ("errors", "streams"),
}  # fmt: skip


def with_marks(name: str) -> Any:
    client, _, what = name.partition("_")
    row = "ai-openai" if name == "ai_responses" else CLIENTS[client]
    marks = [pytest.mark.client(row), pytest.mark.feature(*FEATURES[what])]
    return pytest.param(name, marks=marks)


Told = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("node"), "vllm", "scripted", models=MODELS) as running:
        yield running


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Told:
    """What the script said of everything that it tried, by name."""
    folder = tmp_path_factory.mktemp("script")
    (folder / "node_modules").symlink_to(node_folder() / "node_modules")
    shutil.copy(SOURCE / "clients.mjs", folder)
    at: Fleet = request.getfixturevalue("at")
    words = ["node", str(Path(folder) / "clients.mjs"), at.url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", [with_marks(name) for name in CAME])
def test_the_package_gets_what_it_asked_for(told: Told, name: str) -> None:
    assert told[name] == {"name": name, "came": CAME[name]}


@pytest.mark.client("openai-npm")
@pytest.mark.feature("cancel")
def test_an_aborted_stream_cancels_its_job(told: Told, at: Fleet) -> None:
    job = told["openai_abort"]["came"]

    assert wait_until(lambda: at.job(job)["status"] == "cancelled")


@pytest.mark.client("ollama-npm")
@pytest.mark.feature("cancel")
def test_a_stream_that_ollamas_client_aborts_cancels_its_job(told: Told, at: Fleet) -> None:
    assert told["ollama_abort"]["came"] == "left"

    newest = httpx.get(f"{at.url}/api/v1/jobs?limit=1").json()["jobs"][0]["id"]
    assert wait_until(lambda: at.job(newest)["status"] == "cancelled")


def test_nothing_that_the_script_tries_goes_unlooked_at(told: Told) -> None:
    assert set(told) == {*CAME, "openai_abort", "ollama_abort"}
