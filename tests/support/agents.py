"""Coding agents that work in a folder by scripted answers, set up as docs/clients.md says.

    PYTHONPATH=tests python -m support.agents    # `make agents`: install them all into the cache

Claude Code, Codex, opencode and Continue are packages of npm (tests/clients/agents), aider and Open
WebUI, which is no agent but as large, of PyPI (locks/agents). `LLM_FLEET_NODE=require` makes a
missing one a failure.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

from fleet.real.cache import alone, cache_folder
from support.node import AGENTS, node_folder, nothing

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "clients.md"
ADDRESS, MODEL = "http://127.0.0.1:8700", "qwen3-coder"
"""What the snippets of the document name."""
SCRIPTED = "scripted-tools"
LOCKS = ROOT / "locks" / "agents"
OF_PYPI = ("aider", "open-webui")
NEWEST_PYTHON = (3, 12)
"""That those of PyPI run on."""
PROGRAMS = {
    "claude": "@anthropic-ai/*/claude",
    "codex": "@openai/**/codex",
    "cn": "@continuedev/cli/dist/cn.js",
    "opencode": "opencode-*/bin/opencode",
}


def agent(name: str) -> Path:
    """The program of one; skips the test where it cannot be installed."""
    if name in OF_PYPI:
        return _of_pypi(name)
    modules = node_folder(AGENTS) / "node_modules"
    paths = (path for path in modules.glob(PROGRAMS[name]) if path.is_file())
    found = next((path for path in paths if os.access(path, os.X_OK)), None)
    return found or nothing(f"there is no {name} for this machine")


def _of_pypi(name: str) -> Path:
    version = sys.version_info[:2]
    if version > NEWEST_PYTHON:
        nothing(f"{name} needs Python 3.12 or older")
    lock = LOCKS / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{digest}-py{version[0]}.{version[1]}"
    with alone(folder):
        if not (folder / ".complete").is_file():
            venv.create(folder, clear=True)
            uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet"]
            how = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--compile-bytecode"]
            where = ["--python", str(folder / "bin" / "python"), "-r", str(lock)]
            done = subprocess.run([*uv, *how, *where], capture_output=True, text=True, check=False)
            if done.returncode:
                nothing(f"{name}: {done.stderr.strip()[-500:]}")
            (folder / ".complete").touch()
    return folder / "bin" / name


def snippet(name: str, url: str, model: str = SCRIPTED) -> str:
    """How the document sets an agent up, for a fleet at `url` and a model of its."""
    pattern = rf"<!-- agent: {name} -->\n```\w+\n(.*?)```"
    found = re.search(pattern, DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, name
    assert ADDRESS in found[1]
    return found[1].replace(ADDRESS, url).replace(MODEL, model)


def exports(script: str) -> dict[str, str]:
    """The variables that a script exports."""
    return dict(re.findall(r"^export (\w+)=(\S+)", script, re.MULTILINE))


class Desk(NamedTuple):
    """A folder with a file to mend, and the home of somebody who has only one agent."""

    work: Path
    home: Path

    @property
    def file(self) -> Path:
        return self.work / "greeting.txt"

    def run(
        self, words: list[Any], given: str = "", **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """What an agent prints of its work in the folder, with `given` on its standard input."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        return subprocess.run(
            [str(word) for word in words], cwd=self.work, env={**own, **env}, input=given,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip


def desk(folder: Path) -> Desk:
    """A desk in a folder; the file has a word to correct."""
    made = Desk(folder / "work", folder / "home")
    made.work.mkdir()
    made.home.mkdir()
    made.file.write_text("hello wrld\n")
    return made


def turns(*answers: Any) -> str:
    """A prompt that lists the answers of `scripted-tools`."""
    return f"Do it. <turns>{json.dumps(answers)}</turns>"


def call(name: str, **arguments: str) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


if __name__ == "__main__":
    for each in (*PROGRAMS, *OF_PYPI):
        sys.stdout.write(f"{agent(each)}\n")
