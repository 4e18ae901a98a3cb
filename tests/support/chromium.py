"""The browser that tests of the page use: the machine's Chromium, or Debian's in a cache.

    PYTHONPATH=tests python -m support.chromium    # `make browser`: get it, if it is not there

As root it is installed; otherwise its packages and those that it lacks here are unpacked into a
folder of the user's. `LLM_FLEET_BROWSER=require` makes a missing browser a failure.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from fleet.real.cache import alone, cache_folder

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_UNPACKED: Final = "usr/lib/chromium/chromium"


class Browser(NamedTuple):
    """A program, and where the libraries are that it needs beside the machine's."""

    path: str
    libraries: str = ""

    @property
    def environment(self) -> dict[str, str]:
        return (
            {**os.environ, "LD_LIBRARY_PATH": self.libraries} if self.libraries else {**os.environ}
        )


def _folder() -> Path:
    return cache_folder() / "chromium"


def find() -> Browser | None:
    """The browser, or None."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found:
        return Browser(found)
    unpacked = _folder() / _UNPACKED
    if not unpacked.is_file():
        return None
    folders = {path.parent for path in (_folder() / "usr" / "lib").rglob("*.so*")}
    return Browser(str(unpacked), ":".join(map(str, sorted(folders))))


def browser() -> Browser:
    """The browser; skips the test, loudly, where there is none."""
    found = find()
    if found is None:
        told = "NO CHROMIUM, NOTHING IS PROVED OF THE PAGE: `make browser` gets it"
        if os.environ.get("LLM_FLEET_BROWSER") == "require":
            pytest.fail(told)
        pytest.skip(told)
    return found


def main() -> int:
    """Get the browser, if it is not there."""
    if find() is not None:
        return 0
    if shutil.which("apt-get") is None:
        sys.stderr.write("no apt-get here: install Chromium or Chrome with what there is\n")
        return 1
    if os.geteuid() == 0:
        words = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"]
        if subprocess.run(words, check=False).returncode == 0:
            return 0
        # The lists of an image may name packages that are there no longer.
        subprocess.run(["apt-get", "update", "-q"], check=False)
        return subprocess.run(words, check=False).returncode
    return _unpack()


def _unpack() -> int:
    words = ["apt-get", "-s", "install", "--no-install-recommends", "chromium"]
    plan = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    packages = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    with alone(_folder()), tempfile.TemporaryDirectory(dir=cache_folder()) as place:
        subprocess.run(["apt-get", "download", *packages], cwd=place, check=True)
        whole = Path(place) / "done"
        for package in Path(place).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(whole)], check=True)
        whole.rename(_folder())
    return 0


if __name__ == "__main__":
    sys.exit(main())
