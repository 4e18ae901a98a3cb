"""Codex, as npm has it, over a running fleet: it edits a file and runs a command.

The answers are scripted (`<turns>` in the prompt, workers/scripted/script.py); all else is its own.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fleet import Fleet, fleet
from support.node import agent

CONFIG = """\
model = "{model}"
model_provider = "fleet"

[model_providers.fleet]
name = "fleet"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "FLEET_API_KEY"
http_headers = {{ "X-Fleet-Backend" = "{backend}" }}
"""
PATCH = """\
apply_patch <<'END'
*** Begin Patch
*** Update File: greeting.txt
@@
-hello wrld
+hello world
*** End Patch
END
"""


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("codex"), "vllm", "scripted", keepalive_s=1) as running:
        yield running


def codex(at: Fleet, folder: Path, prompt: str, **settings: str) -> list[dict[str, Any]]:
    """What `codex exec` tells of its work in a folder, with a home of its own."""
    home = folder.parent / "home"
    (home / ".codex").mkdir(parents=True, exist_ok=True)
    chosen = {"url": at.url, "model": "scripted-tools", "backend": "scripted", **settings}
    (home / ".codex" / "config.toml").write_text(CONFIG.format(**chosen))
    words = [str(agent("codex")), "exec", "--json", "--skip-git-repo-check"]
    done = subprocess.run(
        [*words, "--dangerously-bypass-approvals-and-sandbox", prompt],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "FLEET_API_KEY": "unused"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def run(command: str) -> dict[str, Any]:
    return {"calls": [{"name": "exec_command", "arguments": {"cmd": command}}]}


@pytest.mark.parametrize("backend", ["vllm", "scripted"])
def test_it_edits_a_file_and_runs_a_command(at: Fleet, tmp_path: Path, backend: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    file = work / "greeting.txt"
    file.write_text("hello wrld\n")
    turns = [
        {"think": "Look first.", "text": "I look.", **run("cat greeting.txt")},
        run(PATCH),
        run("wc -w < greeting.txt > count.txt"),
        "The file is mended.",
    ]

    told = codex(at, work, f"Do it. <turns>{json.dumps(turns)}</turns>", backend=backend)

    items = [each["item"] for each in told if each["type"] == "item.completed"]
    kinds = [item["type"] for item in items if item["type"] != "error"]
    assert kinds == [
        "reasoning", "agent_message", "command_execution", "file_change", "command_execution",
        "agent_message",
    ]  # fmt: skip
    assert items[-1]["text"] == "The file is mended."
    assert told[-1]["type"] == "turn.completed"
    assert file.read_text() == "hello world\n"
    assert int((work / "count.txt").read_text()) == 2


def test_a_wrong_model_is_told(at: Fleet, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    told = codex(at, work, "hello", model="no-such-model")

    assert told[-1]["type"] == "turn.failed"
    assert "no-such-model" in told[-1]["error"]["message"]
