"""Claude Code, as npm has it, over a running fleet: it edits a file and runs a command.

The answers are scripted (`<turns>` in the prompt, workers/scripted/script.py); all else is its own.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fleet import Fleet, fleet
from support.node import agent

QUIET = (
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "DISABLE_ERROR_REPORTING",
    "DISABLE_TELEMETRY", "IS_SANDBOX",
)  # fmt: skip


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("claude"), "vllm", "scripted", keepalive_s=1) as running:
        yield running


def claude(at: Fleet, folder: Path, prompt: str, **env: str) -> dict[str, Any]:
    """What `claude -p` says of its work in a folder, with a home of its own."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    words = [str(agent("claude")), "-p", prompt, "--permission-mode", "bypassPermissions"]
    done = subprocess.run(
        [*words, "--output-format", "json"],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": at.url,
            "ANTHROPIC_API_KEY": "unused",
            "ANTHROPIC_MODEL": "scripted-tools",
            **dict.fromkeys(QUIET, "1"),
            **env,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def turns(*answers: Any) -> str:
    return f"Do it. <turns>{json.dumps(answers)}</turns>"


def call(name: str, **arguments: str) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize("backend", ["vllm", "scripted"])
def test_it_edits_a_file_and_runs_a_command(at: Fleet, tmp_path: Path, backend: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    file = work / "greeting.txt"
    file.write_text("hello wrld\n")
    count = call("Bash", command="wc -w < greeting.txt > count.txt", description="Count")
    edit = call("Edit", file_path=str(file), old_string="wrld", new_string="world")
    prompt = turns(
        {"think": "Look first.", "text": "I look.", "calls": [call("Read", file_path=str(file))]},
        {"calls": [edit]},
        {"text": "And now", "calls": [count]},
        "The file is mended.",
    )

    told = claude(at, work, prompt, ANTHROPIC_CUSTOM_HEADERS=f"X-Fleet-Backend: {backend}")

    assert (told["is_error"], told["result"]) == (False, "The file is mended.")
    assert told["num_turns"] == 4
    assert file.read_text() == "hello world\n"
    assert int((work / "count.txt").read_text()) == 2


def test_a_wrong_model_is_said_as_claude_code_says_it(at: Fleet, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    told = claude(at, work, "hello", ANTHROPIC_MODEL="no-such-model")

    assert told["is_error"]
    assert "no-such-model" in told["result"]


def test_its_conversation_is_a_job_for_each_turn(at: Fleet, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    before = {job["id"] for job in _jobs(at)}

    claude(at, work, turns({"calls": [call("Bash", command="true", description="x")]}, "Done."))

    new = [job for job in _jobs(at) if job["id"] not in before]
    assert [job["status"] for job in new] == ["done", "done"]
    assert all("session_id" in job["metadata"]["user_id"] for job in new)


def _jobs(at: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{at.url}/api/v1/jobs").json()["jobs"]
    return found
