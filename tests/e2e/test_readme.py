"""The README's lines, run as they stand against a running `fleet up`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.tiny_bert import write_tiny_bert
from support.up import wait_until

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- run: (\w+) -->\n```\w+\n(.*?)```", README, re.DOTALL)
TOLD = ["scripted backend", "completion_tokens=", "19 Say 19.", '"status":"done"']
"""What each of them prints, among other things."""
BIN = str(Path(sys.executable).parent)


@pytest.fixture(scope="module")
def fleet_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user who has just typed `fleet up`.

    The first of their models by name only embeds: the examples must choose one that chats.
    """
    embeds = write_tiny_bert(tmp_path_factory.mktemp("models") / "aa-embed")
    words = [
        f"{BIN}/fleet", "up", "--json", "--port", "0", "--data-dir",
        str(tmp_path_factory.mktemp("data")), "--backend", "scripted=scripted://",
        "--backend", f"embedder=local://{embeds}",
    ]  # fmt: skip
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLEET_")}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        try:
            ready = json.loads(up.stdout.readline())
            url = ready["urls"][0]
            models = wait_until(lambda: _with_both(url), 30)
            assert min(model["name"] for model in models) == "aa-embed"
            model = next(m["name"] for m in models if "chat" in m["traits"])
            yield env | {"FLEET_URL": url, "MODEL": model, "PATH": f"{BIN}:{env['PATH']}"}
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(30)


def _with_both(url: str) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = httpx.get(f"{url}/api/v1/models").json()["models"]
    backends = {model["backend"] for model in models}
    return models if backends == {"scripted", "embedder"} else []


def test_there_are_examples() -> None:
    assert [kind for kind, _ in BLOCKS] == ["sh", "python", "python", "sh"]


@pytest.mark.slow
@pytest.mark.parametrize(("at", "told"), list(enumerate(TOLD)))
def test_an_example_runs_as_it_stands(
    fleet_env: dict[str, str], tmp_path: Path, at: int, told: str
) -> None:
    kind, code = BLOCKS[at]
    words = {"sh": ["bash", "-euc", code], "python": [sys.executable, "-c", code]}[kind]
    done = subprocess.run(
        words, env=fleet_env, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )

    assert done.returncode == 0, done.stderr + done.stdout
    assert told in done.stdout
