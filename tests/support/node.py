"""The npm packages of tests/clients/node, installed once a machine into a cache, as locked.

`LLM_FLEET_NODE=require` makes it a failure that there is no Node, or no way to install them.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from fleet.real.cache import alone, cache_folder

SOURCE = Path(__file__).parents[1] / "clients" / "node"
OLDEST = 20
"""The major version of Node that the packages run on."""


def node_folder() -> Path:
    """A folder with `node_modules`; skips the test, loudly, where there can be none."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    folder = cache_folder() / f"node-{hashlib.sha256(lock).hexdigest()[:12]}"
    _look_for_node()
    with alone(folder):
        if not folder.is_dir():
            _install(folder)
    return folder


def _look_for_node() -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        _nothing("no node and npm on PATH")
    version = _run("node", "--version").stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST:
        _nothing(f"node {version} is older than {OLDEST}")


def _install(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".node-", dir=folder.parent) as place:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, place)
        done = _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=place)
        if done.returncode:
            _nothing(f"npm ci: {done.stderr.strip()[-500:]}")
        work = Path(place) / "done"
        work.mkdir()
        for each in ("package.json", "package-lock.json", "node_modules"):
            (Path(place) / each).rename(work / each)
        work.rename(folder)


def _run(*words: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


def _nothing(why: str) -> None:
    told = f"NO NODE, NOTHING IS PROVED: {why}"
    if os.environ.get("LLM_FLEET_NODE") == "require":
        pytest.fail(told)
    pytest.skip(told)
