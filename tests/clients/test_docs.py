"""The snippets of docs/clients.md, run as they stand."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fleet import Fleet, fleet
from support.node import node_folder

DOCS = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"<!-- run: (\w+) -->\n```(\w+)\n(.*?)```", DOCS, re.DOTALL)
ADDRESS = "http://127.0.0.1:8700"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("box"), "ollama") as running:
        yield running


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
