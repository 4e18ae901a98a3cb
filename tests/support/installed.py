"""The wheel in an environment of its own: from a lock, outside the checkout, nothing else there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.up import ROOT, Said, Up, environment, start_up, stop

LOCKED = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
BUILT_FROM = ("contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet")


def uv(*words: str | Path) -> str:
    """Run the uv of this environment; what it printed. A test that needs it fails without."""
    binary = Path(sys.executable).with_name("uv")
    assert binary.is_file(), f"no {binary}: make dev installs it"
    done = subprocess.run(
        [binary, *words], capture_output=True, text=True, check=False, timeout=100, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build this checkout's wheel there, offline, with what the lock brought."""
    python = ("--python", sys.executable)
    uv("build", "--quiet", "--wheel", "--offline", "--no-build-isolation", *python, "-o", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


class Installed:
    """An environment that has what `locks/run.txt` names, and the wheel."""

    def __init__(self, folder: Path, wheel: Path, python: str) -> None:
        """Make it with that interpreter; may fetch what is not in uv's cache."""
        self.folder = folder
        self.bin = folder / "env" / "bin"
        self.python = self.bin / "python"
        self.fleet = self.bin / "fleet"
        uv("venv", "--quiet", "--no-python-downloads", "--python", python, folder / "env")
        install = ("pip", "install", "--quiet", "--python", self.python)
        uv(*install, *LOCKED, "-r", ROOT / "locks" / "run.txt")
        uv(*install, "--offline", "--no-deps", wheel)

    def run(self, *words: str | Path, **more: str) -> Said:
        """Run a command to its end, away from the checkout."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            words, cwd=self.folder, env=environment(PATH=path, **more),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def up(self) -> Iterator[Up]:
        """Its `fleet up`, ready."""
        up = start_up(self.folder / "data", program=(str(self.fleet),), cwd=self.folder)
        try:
            yield up
        finally:
            stop(up)


def interpreter(version: str) -> str | None:
    """That Python on this machine, as in `3.12`: on PATH or one of pyenv's; None without."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python{version}"), *root.glob(f"versions/{version}*/bin/python3")]
    question = "import sys; print(*sys.version_info[:2], sep='.')"
    for each in filter(None, candidates):
        # One on PATH may be pyenv's stand-in, which only says that it is switched off.
        asked = subprocess.run([each, "-c", question], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == version:
            return str(each)
    return None
