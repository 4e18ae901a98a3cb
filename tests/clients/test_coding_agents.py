"""aider, opencode and Continue, as registries have them, mend a file over a running fleet.

The answers are scripted (`<turns>` in the prompt, workers/scripted/script.py); the settings are
those of docs/clients.md.
"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.agents import SCRIPTED, Desk, agent, call, desk, exports, snippet, turns
from support.fleet import Fleet, fleet

OFFLINE = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1", "OPENCODE_PURE": "1", "npm_config_offline": "true",
}  # fmt: skip
EDITED = """\
I mend it.

greeting.txt
```
<<<<<<< SEARCH
hello wrld
=======
hello world
>>>>>>> REPLACE
```
"""
COUNT = "wc -w < greeting.txt > count.txt"


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("agents"), "vllm", keepalive_s=1) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Desk:
    return desk(tmp_path)


def aider(at: Fleet, own: Desk, prompt: str, model: str = SCRIPTED) -> str:
    script = snippet("aider", at.url, model)
    _, *words = shlex.split(script.splitlines()[-1])
    once = ["--no-git", "--yes-always", "--no-check-update", "--analytics-disable"]
    quiet = ["--no-show-model-warnings", "--no-stream", "--no-pretty"]
    (own.home / "prompt").write_text(prompt)
    asked = ["--message-file", own.home / "prompt", own.file]
    done = own.run([agent("aider"), *words, *once, *quiet, *asked], **exports(script))
    return done.stdout + done.stderr


def opencode(at: Fleet, own: Desk, prompt: str, model: str = SCRIPTED) -> str:
    (own.work / "opencode.json").write_text(snippet("opencode", at.url, model))
    words = [agent("opencode"), "run", "--format", "json"]
    # A prompt on the command line would be put into quotes.
    return own.run(words, prompt, FLEET_API_KEY="unused", **OFFLINE).stdout


def continue_cli(at: Fleet, own: Desk, prompt: str, model: str = SCRIPTED) -> str:
    (own.home / ".continue").mkdir()
    (own.home / ".continue" / "config.yaml").write_text(snippet("continue", at.url, model))
    config = own.home / ".continue" / "config.yaml"
    words = [agent("cn"), "--config", config, "--auto", "-p", prompt]
    done = own.run(words, CONTINUE_TELEMETRY_ENABLED="0")
    return done.stdout + done.stderr


def jobs(at: Fleet) -> list[dict[str, Any]]:
    """Jobs of the fleet, newest first."""
    found: list[dict[str, Any]] = httpx.get(f"{at.url}/api/v1/jobs").json()["jobs"]
    return found


@pytest.mark.client("aider")
@pytest.mark.feature("chat", "edits")
def test_aider_edits_a_file(at: Fleet, own: Desk) -> None:
    said = aider(at, own, turns(EDITED))

    assert own.file.read_text() == "hello world\n", said
    assert "Applied edit to greeting.txt" in said


@pytest.mark.client("opencode")
@pytest.mark.feature("streams", "tools", "edits")
def test_opencode_reads_and_edits_a_file_and_runs_a_command(at: Fleet, own: Desk) -> None:
    path = str(own.file)
    prompt = turns(
        {"text": "I look.", "calls": [call("read", filePath=path)]},
        {"calls": [call("edit", filePath=path, oldString="wrld", newString="world")]},
        {"calls": [call("bash", command=COUNT, description="Count")]},
        "The file is mended.",
    )

    told = [json.loads(line) for line in opencode(at, own, prompt).splitlines()]

    assert own.file.read_text() == "hello world\n", told
    assert int((own.work / "count.txt").read_text()) == 2
    texts = [each["part"]["text"] for each in told if each["type"] == "text"]
    assert texts == ["I look.", "The file is mended."]
    assert {job["priority"] for job in jobs(at)[:4]} == {"interactive"}


@pytest.mark.client("continue")
@pytest.mark.feature("streams", "tools", "edits")
def test_continue_reads_and_edits_a_file_and_runs_a_command(at: Fleet, own: Desk) -> None:
    path = str(own.file)
    prompt = turns(
        {"text": "I look.", "calls": [call("Read", filepath=path)]},
        {"calls": [call("Edit", file_path=path, old_string="wrld", new_string="world")]},
        {"calls": [call("Bash", command=COUNT)]},
        "The file is mended.",
    )

    said = continue_cli(at, own, prompt)

    assert own.file.read_text() == "hello world\n", said
    assert int((own.work / "count.txt").read_text()) == 2
    assert said.strip() == "The file is mended."
    assert {job["priority"] for job in jobs(at)[:4]} == {"interactive"}


@pytest.mark.feature("errors")
@pytest.mark.parametrize(
    "run",
    [
        pytest.param(aider, marks=pytest.mark.client("aider")),
        pytest.param(opencode, marks=pytest.mark.client("opencode")),
        pytest.param(continue_cli, marks=pytest.mark.client("continue")),
    ],
)
def test_an_unknown_model_is_told_in_the_fleets_words(at: Fleet, own: Desk, run: Any) -> None:
    said = " ".join(run(at, own, "hello", "nobody-has-this").split())

    assert "nobody-has-this" in said
    assert "GET /v1/models lists them all" in said
