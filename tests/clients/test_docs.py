"""The snippets of docs/clients.md, run as they stand."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.fleet import Fleet, fleet
from support.node import node_folder
from support.processes import worker
from support.tiny_bert import write_tiny_bert
from support.up import wait_until

DOCS = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"<!-- run: (\w+) -->\n```(\w+)\n(.*?)```", DOCS, re.DOTALL)
ADDRESS = "http://127.0.0.1:8700"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet whose first model by name only embeds: the snippets must choose one that chats.

    Its second backend only reranks.
    """
    folder = tmp_path_factory.mktemp("box")
    ranks = {"LLM_RANKS": "scripted://", "FLEET_WORKER_KINDS": "rerank"}
    embeds = write_tiny_bert(folder / "aa-embed")
    with (
        fleet(folder, "ollama") as running,
        worker(running.redis_url, folder, "embedder", LLM_EMBEDDER=f"local://{embeds}"),
        worker(running.redis_url, folder, "ranks", **ranks),
    ):
        wait_until(lambda: "aa-embed" in names(running), 30)
        yield running


def names(box: Fleet) -> list[str]:
    listed = httpx.get(f"{box.url}/api/v1/models").json()["models"]
    return [model["name"] for model in listed]


def test_an_embedding_model_is_there_and_would_be_first_by_name(box: Fleet) -> None:
    assert min(names(box)) == "aa-embed"


@pytest.mark.parametrize(
    ("kind", "code"),
    [snippet[1:] for snippet in SNIPPETS],
    ids=["-".join(snippet[:2]) for snippet in SNIPPETS],
)
def test_a_snippet_runs_as_it_stands(box: Fleet, tmp_path: Path, kind: str, code: str) -> None:
    said = code.replace(ADDRESS, box.url)
    words = {
        "sh": ["bash", "-euc", said],
        "python": [sys.executable, "-c", said],
        "js": ["node", "--input-type=module", "--eval", said],
    }[kind]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        words, cwd=node_folder() if kind == "js" else tmp_path, capture_output=True, text=True,
        env={**os.environ, "LLM_USER_PATH": str(tmp_path), "PATH": path}, timeout=90, check=False,
    )  # fmt: skip

    assert ADDRESS in code
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "error" not in done.stdout
