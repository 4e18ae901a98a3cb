"""The npm packages of tests/clients/node and agents, once a machine into a cache.

`LLM_FLEET_NODE=require` makes it a failure that there is no Node, or no way to install them.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from fleet.real.cache import alone, cache_folder

SOURCE = Path(__file__).parents[1] / "clients" / "node"
AGENTS = SOURCE.parent / "agents"
OLDEST = 20
"""The major version of Node that the packages run on."""


def node_folder(source: Path = SOURCE) -> Path:
    """A folder with `node_modules`; skips the test, loudly, where there can be none."""
    lock = (source / "package-lock.json").read_bytes()
    folder = cache_folder() / f"{source.name}-{hashlib.sha256(lock).hexdigest()[:12]}"
    _look_for_node()
    with alone(folder):
        if not folder.is_dir():
            _install(source, folder)
    return folder


def _look_for_node() -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        nothing("no node and npm on PATH")
    version = _run("node", "--version").stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST:
        nothing(f"node {version} is older than {OLDEST}")


def _install(source: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".node-", dir=folder.parent) as place:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, place)
        done = _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=place)
        if done.returncode:
            nothing(f"npm ci: {done.stderr.strip()[-500:]}")
        work = Path(place) / "done"
        work.mkdir()
        for each in ("package.json", "package-lock.json", "node_modules"):
            (Path(place) / each).rename(work / each)
        work.rename(folder)


def _run(*words: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def nothing(why: str) -> NoReturn:
    """Skip the test, loudly; fail it if the tools are required."""
    told = f"A CLIENT IS MISSING, NOTHING IS PROVED: {why}"
    if os.environ.get("LLM_FLEET_NODE") == "require":
        pytest.fail(told)
    pytest.skip(told)
