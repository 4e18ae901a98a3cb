"""Programs that tests run and this project does not ship: the machine's, or Debian's in a cache.

    PYTHONPATH=tests python -m support.debian_programs    # `make debian`: unpack what is missing

Prometheus is fetched, too (support/prometheus.py). Nothing is installed: packages, and those that
they need and this machine lacks, are unpacked into `LLM_FLEET_CACHE`. A test of a program that is
nowhere is skipped, loudly; with `LLM_FLEET_DEBIAN=require` it fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import pytest

from fleet.real import prometheus
from fleet.real.cache import alone, cache_folder
from fleet.real.prometheus import NoPrometheus

PROGRAMS: Final = ("nginx", "caddy", "redis-server", "nft")
"""Each is in the package of its name, but for PACKAGES."""
PACKAGES: Final = {"nft": "nftables"}
_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_DOWNLOAD_S: Final = 300


class Program(NamedTuple):
    """A program, and where the libraries are that it needs beside the machine's."""

    path: Path
    libraries: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that runs it."""
        found = {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}
        return {**os.environ, **found}


class NoPackage(Exception):
    """A package is not to be had here; the message says why."""


def find(name: str) -> Program | None:
    """The program, of the machine or of the cache; None: it is in neither."""
    if on_path := shutil.which(name, path=_PATH):
        return Program(Path(on_path))
    folder = _folder(name)
    unpacked = next(
        (path for each in ("bin", "sbin") if (path := folder / "usr" / each / name).is_file()), None
    )
    if unpacked is None:
        return None
    libraries = sorted({str(path.parent) for path in folder.rglob("*.so*")})
    return Program(unpacked, os.pathsep.join(libraries))


def program(name: str) -> Program:
    """The program; skips the test, loudly, where it is not."""
    return find(name) or missing(f"NO {name.upper()}, NOTHING IS PROVED OF IT: `make debian`")


def missing(told: str) -> NoReturn:
    """Skip the test, or fail it where these programs are required."""
    if os.environ.get("LLM_FLEET_DEBIAN") == "require":
        pytest.fail(told)
    pytest.skip(told)


def unpack(name: str) -> None:
    """Unpack a program into the cache, unless it is there or on the machine; raises NoPackage."""
    for tool in ("apt-get", "dpkg"):
        if not shutil.which(tool):
            raise NoPackage(f"no {tool}: install {name} with what there is")
    with alone(_folder(name)):
        if find(name) is None:
            with tempfile.TemporaryDirectory(dir=cache_folder()) as place:
                _fetch(PACKAGES.get(name, name), place)
                shutil.rmtree(_folder(name), ignore_errors=True)
                (Path(place) / "unpacked").rename(_folder(name))


def _folder(name: str) -> Path:
    return cache_folder() / "debian" / name


def _fetch(package: str, place: str) -> None:
    plan = _run(["apt-get", "-s", "install", "--no-install-recommends", package], place)
    # What is there already, and would only be updated, is named with its version: Inst a [1] (2).
    words = [line.split() for line in plan.splitlines() if line.startswith("Inst ")]
    new = [each[1] for each in words if not each[2].startswith("[")]
    _run(["apt-get", "download", *new], place)
    for archive in Path(place).glob("*.deb"):
        _run(["dpkg", "-x", str(archive), "unpacked"], place)


def _run(command: list[str], place: str) -> str:
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False
    )
    if done.returncode:
        told = done.stderr.strip()[-300:]
        raise NoPackage(f"{' '.join(command)}: {told} (`apt-get update` first?)")
    return done.stdout


def _prometheus() -> None:
    try:
        prometheus.download()
    except NoPrometheus as error:
        raise NoPackage(str(error)) from None


def main() -> int:
    """Get what is missing; the exit code is 1 if something cannot be had."""
    wanted: dict[str, Callable[[], None]] = {name: partial(unpack, name) for name in PROGRAMS}
    lacking = {name: get for name, get in wanted.items() if find(name) is None}
    lacking["prometheus"] = _prometheus
    if os.geteuid() == 0 and shutil.which("apt-get"):
        # An image has no lists, or old ones, which name files that are gone.
        subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
    failed = False
    for name, get in lacking.items():
        try:
            get()
        except NoPackage as error:
            sys.stderr.write(f"NOT HERE, ITS TESTS ARE SKIPPED: {name}: {error}\n")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
