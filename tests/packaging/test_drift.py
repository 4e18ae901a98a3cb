"""Installing on another day: every package has a newer release than the lock, and nothing changes.

The trap is proved, too: a pip that resolves falls into it, as every fresh machine did once.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.drifting_index import NEWER, DriftingIndex, entries
from support.installed import LOCKED, uv

from fleet.real.cache import alone, cache_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TOP = Path(__file__).parents[2]
COPIED = ("Makefile", "pyproject.toml", "README.md", "LICENSE", "Procfile")
PACKAGES = ("contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet")
REAL = tuple(entry.partition("==")[0] for entry in entries(TOP / "locks" / "build.txt"))
"""What runs while the project is installed."""
REAL_LOCKS = TOP / "fleet" / "real" / "locks"
PIPS = ("pip-oldest", "the machine's", "pip-newest")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriftingIndex]:
    made = DriftingIndex(tmp_path_factory.mktemp("index"))
    with made.serving():
        yield made


@pytest.fixture(scope="module")
def project(index: DriftingIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project, its locks rewritten to the hashes of the index."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        shutil.copy(TOP / name, folder)
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    for lock in [*(TOP / "locks").rglob("*.txt"), *REAL_LOCKS.glob("*.txt")]:
        place = lock.relative_to(TOP / "locks") if lock.is_relative_to(TOP / "locks") else lock.name
        (folder / "locks" / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / "locks" / place).write_text(index.lock(entries(lock), {*REAL, "uv"}))
    return folder


def pip_folder(name: str) -> Path | None:
    """Where that pip is, installed once a machine; None for the one that the machine brings."""
    lock = TOP / "locks" / f"{name}.txt"
    if not lock.exists():
        return None
    folder = cache_folder() / entries(lock)[0].replace("==", "-")
    with alone(folder):
        if not folder.is_dir():
            uv("pip", "install", "--quiet", *LOCKED, "-r", lock, "--target", f"{folder}.draft")
            Path(f"{folder}.draft").rename(folder)
    return folder


def environment(index: DriftingIndex, folder: Path, pip: str) -> dict[str, str]:
    """Nothing that configures pip, uv or make here; `python -m pip` is the pip in question."""
    if pip == "pip-oldest" and sys.version_info >= (3, 12):
        pytest.skip("that pip does not run on Python 3.12, which brought a newer one")
    private = ("PIP_", "UV_", "PYTHON", "MAKE", "VIRTUAL_ENV", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    first = pip_folder(pip)
    return kept | ({"PYTHONPATH": str(first)} if first else {}) | {
        "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.url, "PIP_NO_CACHE_DIR": "1",
        "UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(folder / "cache"),
        "NO_PROXY": "127.0.0.1",
    }  # fmt: skip


def run(folder: Path, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=250
    )


def installed(folder: Path, env: dict[str, str]) -> set[str]:
    listed = run(folder, env, ".venv/bin/uv", "pip", "freeze", "--exclude-editable")
    return set(listed.stdout.splitlines())


def pinned(*locks: str) -> set[str]:
    lines = (entry for lock in locks for entry in entries(TOP / "locks" / f"{lock}.txt"))
    return {line.partition(";")[0].strip() for line in lines}


@pytest.mark.parametrize("pip", PIPS)
def test_make_installs_what_the_lock_names_with_any_pip(
    pip: str, index: DriftingIndex, project: Path, tmp_path: Path
) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    env = environment(index, tmp_path, pip)
    index.asked.clear()
    made = run(tmp_path, env, "make", "install", "dev", f"PYTHON={sys.executable}")

    assert made.returncode == 0, made.stdout + made.stderr
    found = installed(tmp_path, env)
    assert found <= pinned("dev", "build", "model", "uv")
    assert len(found) > 100
    assert not [path for path in index.asked if NEWER in path]


@pytest.mark.parametrize("lock", ["image", "run", "peers/litellm", "tools", "inprocess"])
@pytest.mark.parametrize("pip", PIPS)
def test_pip_alone_takes_what_a_lock_names(
    pip: str, lock: str, index: DriftingIndex, project: Path, tmp_path: Path
) -> None:
    env = environment(index, tmp_path, pip)
    install = (sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed")
    done = run(tmp_path, env, *install, *LOCKED, "-r", str(project / "locks" / f"{lock}.txt"))

    assert done.returncode == 0, done.stderr
    assert NEWER not in done.stdout


def test_an_old_pip_that_resolves_breaks_here(
    index: DriftingIndex, project: Path, tmp_path: Path
) -> None:
    env = environment(index, tmp_path, "pip-oldest")
    words = (sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed")
    done = run(tmp_path, env, *words, "--require-hashes", "-r", str(project / "locks" / "dev.txt"))

    assert done.returncode != 0
    assert "must have their versions pinned" in done.stderr
