"""Finds Prometheus and its promtool, or takes them from Debian's package into the cache.

    python -m fleet.real.prometheus download    fetch the package, once; needs apt-get and dpkg
    python -m fleet.real.prometheus path        print the folder; exit code 1 if it is nowhere

Nothing is installed: the package is unpacked into `LLM_FLEET_CACHE`.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from fleet.real.cache import alone, cache_folder

_DOWNLOAD_S: Final = 300


class NoPrometheus(Exception):
    """Prometheus is not on this machine; the message says how to get it."""


def find() -> Path:
    """The folder with `prometheus` and `promtool`: of PATH, else of the cache.

    Raises NoPrometheus.
    """
    on_path = shutil.which("promtool")
    if on_path is not None and shutil.which("prometheus", path=str(Path(on_path).parent)):
        return Path(on_path).parent
    if (_unpacked() / "promtool").is_file():
        return _unpacked()
    raise NoPrometheus("no promtool: `make prometheus` fetches Debian's package into the cache")


def download() -> Path:
    """Unpack Debian's package into the cache, unless it is there; raises NoPrometheus."""
    target = _unpacked().parents[1]
    with alone(target):
        if not (_unpacked() / "promtool").is_file():
            _fetch(target)
    return find()


def _unpacked() -> Path:
    return cache_folder() / "prometheus" / "usr" / "bin"


def _fetch(target: Path) -> None:
    for tool in ("apt-get", "dpkg"):
        if not shutil.which(tool):
            raise NoPrometheus(f"no {tool}: install Prometheus, with promtool on PATH")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        _run(["apt-get", "download", "prometheus"], folder)
        package = next(Path(folder).glob("prometheus_*.deb"), None)
        if package is None:
            raise NoPrometheus("apt-get has downloaded no package: `apt-get update` first")
        _run(["dpkg", "-x", str(package), "unpacked"], folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        (Path(folder) / "unpacked").rename(target)


def _run(command: list[str], folder: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own words
        command, cwd=folder, capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False
    )
    if done.returncode:
        raise NoPrometheus(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    try:
        match arguments:
            case ["download"]:
                sys.stdout.write(f"{download()}\n")
            case ["path"]:
                sys.stdout.write(f"{find()}\n")
            case _:
                sys.stderr.write(__doc__ or "")
                return 2
    except NoPrometheus as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
