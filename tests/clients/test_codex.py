"""Codex, as npm has it, over a running fleet: it edits a file and runs a command.

The answers are scripted (`<turns>` in the prompt, workers/scripted/script.py); all else is its own.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import Desk, agent, desk, snippet, turns
from support.fleet import Fleet, fleet

pytestmark = pytest.mark.client("codex")

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


def codex(
    at: Fleet, own: Desk, prompt: str, backend: str = "scripted", model: str = "scripted-tools"
) -> list[dict[str, Any]]:
    """What `codex exec` tells of its work."""
    config = snippet("codex", at.url, model).replace("X-Fleet-Priority", "X-Fleet-Backend")
    (own.home / ".codex").mkdir()
    (own.home / ".codex" / "config.toml").write_text(config.replace("interactive", backend))
    words = [agent("codex"), "exec", "--json", "--skip-git-repo-check"]
    how = "--dangerously-bypass-approvals-and-sandbox"
    done = own.run([*words, how, prompt], FLEET_API_KEY="unused")
    return [json.loads(line) for line in done.stdout.splitlines()]


def run(command: str) -> dict[str, Any]:
    return {"calls": [{"name": "exec_command", "arguments": {"cmd": command}}]}


@pytest.mark.parametrize("backend", ["vllm", "scripted"])
@pytest.mark.feature("edits", "tools", "streams", "thinking", "responses")
def test_it_edits_a_file_and_runs_a_command(at: Fleet, tmp_path: Path, backend: str) -> None:
    own = desk(tmp_path)
    answers = [
        {"think": "Look first.", "text": "I look.", **run("cat greeting.txt")},
        run(PATCH),
        run("wc -w < greeting.txt > count.txt"),
        "The file is mended.",
    ]

    told = codex(at, own, turns(*answers), backend)

    items = [each["item"] for each in told if each["type"] == "item.completed"]
    kinds = [item["type"] for item in items if item["type"] != "error"]
    assert kinds == [
        "reasoning", "agent_message", "command_execution", "file_change", "command_execution",
        "agent_message",
    ]  # fmt: skip
    assert items[-1]["text"] == "The file is mended."
    assert told[-1]["type"] == "turn.completed"
    assert own.file.read_text() == "hello world\n"
    assert int((own.work / "count.txt").read_text()) == 2


@pytest.mark.feature("errors")
def test_a_wrong_model_is_told(at: Fleet, tmp_path: Path) -> None:
    told = codex(at, desk(tmp_path), "hello", model="no-such-model")

    assert told[-1]["type"] == "turn.failed"
    assert "no-such-model" in told[-1]["error"]["message"]
