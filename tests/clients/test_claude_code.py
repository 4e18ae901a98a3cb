"""Claude Code, as npm has it, over a running fleet: it edits a file and runs a command.

The answers are scripted (`<turns>` in the prompt, workers/scripted/script.py); all else is its own.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.agents import Desk, agent, call, desk, exports, snippet, turns
from support.fleet import Fleet, fleet

pytestmark = pytest.mark.client("claude")

QUIET = ("DISABLE_AUTOUPDATER", "DISABLE_ERROR_REPORTING", "DISABLE_TELEMETRY", "IS_SANDBOX")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("claude"), "vllm", "scripted", keepalive_s=1) as running:
        yield running


def claude(at: Fleet, own: Desk, prompt: str, **env: str) -> dict[str, Any]:
    """What `claude -p` says of its work."""
    words = [agent("claude"), "-p", prompt, "--permission-mode", "bypassPermissions"]
    done = own.run(
        [*words, "--output-format", "json"],
        **{**dict.fromkeys(QUIET, "1"), **exports(snippet("claude", at.url)), **env},
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("backend", ["vllm", "scripted"])
@pytest.mark.feature("edits", "tools", "streams", "thinking")
def test_it_edits_a_file_and_runs_a_command(at: Fleet, tmp_path: Path, backend: str) -> None:
    own = desk(tmp_path)
    path = str(own.file)
    count = call("Bash", command="wc -w < greeting.txt > count.txt", description="Count")
    edit = call("Edit", file_path=path, old_string="wrld", new_string="world")
    prompt = turns(
        {"think": "Look first.", "text": "I look.", "calls": [call("Read", file_path=path)]},
        {"calls": [edit]},
        {"text": "And now", "calls": [count]},
        "The file is mended.",
    )

    told = claude(at, own, prompt, ANTHROPIC_CUSTOM_HEADERS=f"X-Fleet-Backend: {backend}")

    assert (told["is_error"], told["result"]) == (False, "The file is mended.")
    assert told["num_turns"] == 4
    assert own.file.read_text() == "hello world\n"
    assert int((own.work / "count.txt").read_text()) == 2


@pytest.mark.feature("errors")
def test_a_wrong_model_is_said_as_claude_code_says_it(at: Fleet, tmp_path: Path) -> None:
    own = desk(tmp_path)

    told = claude(at, own, "hello", ANTHROPIC_MODEL="no-such-model")

    assert told["is_error"]
    assert "no-such-model" in told["result"]


@pytest.mark.feature("chat")
def test_its_conversation_is_a_job_for_each_turn(at: Fleet, tmp_path: Path) -> None:
    own = desk(tmp_path)
    before = {job["id"] for job in _jobs(at)}

    claude(at, own, turns({"calls": [call("Bash", command="true", description="x")]}, "Done."))

    new = [job for job in _jobs(at) if job["id"] not in before]
    assert [job["status"] for job in new] == ["done", "done"]
    whole = [httpx.get(f"{at.url}/api/v1/jobs/{job['id']}").json() for job in new]
    assert all("session_id" in job["metadata"]["user_id"] for job in whole)
    assert {job["priority"] for job in new} == {"interactive"}


def _jobs(at: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{at.url}/api/v1/jobs").json()["jobs"]
    return found
