"""The libraries that run models inside a worker, in an environment of their own.

    python -m fleet.real.inprocess build      install them into the cache, unless they are there
    python -m fleet.real.inprocess test       run the tests that need them (from a checkout)
    python -m fleet.real.inprocess python     print the path of the environment's Python

They are not for everybody: llama-cpp-python compiles for minutes, openvino takes 250 MB. The
environment sees everything that this Python has installed. `LLM_FLEET_CACHE` names another cache.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Final

from fleet.real.build import LOCKED, LOCKS
from fleet.real.cache import alone, cache_folder
from fleet.real.llama_server import RECIPE

WHEELS: Final = (LOCKS / "tools.txt", LOCKS / "inprocess.txt")
SOURCE: Final = LOCKS / f"{RECIPE.package}.txt"
"""Compiled by the tools of the first."""
TESTS: Final = "tests/real/test_inprocess_{}.py"
SUBJECTS: Final = ("llama", "openvino", "residence", "fleet")
REQUIRE: Final = "LLM_FLEET_INPROCESS"
"""Set to `require`, a missing library is a failure of its tests."""


def environment() -> Path:
    """Where it is or will be."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    locks = hashlib.sha256(b"".join(each.read_bytes() for each in (*WHEELS, SOURCE))).hexdigest()
    return cache_folder() / f"inprocess-{locks[:12]}-py{version}"


def python() -> Path:
    """Its interpreter."""
    return environment() / "bin" / "python"


def build() -> Path:
    """The interpreter of the environment, made now if it was not there.

    Raises subprocess.CalledProcessError when pip fails; what it says is on stderr.
    """
    folder = environment()
    with alone(folder):
        if not (folder / ".complete").is_file():
            venv.create(folder, with_pip=True, clear=True)
            for lock in WHEELS:
                _install(lock, "--only-binary", ":all:")
            _install(SOURCE, "--no-build-isolation", "--no-binary", ":all:")
            (folder / ".complete").touch()
        _see_ours(folder)
    return python()


def _install(lock: Path, *how: str) -> None:
    """Install what a lock names, and compile with what is there: nothing is resolved."""
    command = [str(python()), "-m", "pip", "install", *LOCKED, *how, "-r", str(lock)]
    path = f"{python().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"PATH": path})  # noqa: S603 - our own words


def _see_ours(folder: Path) -> None:
    """Let it see what this Python has; every time, because another checkout may use it, too."""
    ours = sysconfig.get_path("purelib")
    theirs = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # addsitedir and not the path alone: an editable install is a .pth file itself.
    line = f"import site; site.addsitedir({ours!r})\n"
    Path(theirs, "beside.pth").write_text(line, encoding="utf-8")


def test(options: list[str]) -> int:
    """Run the tests; the exit code is pytest's."""
    files = [TESTS.format(subject) for subject in SUBJECTS]
    command = [str(build()), "-m", "pytest", *files, *options]
    return subprocess.run(command, check=False, env=os.environ | {REQUIRE: "require"}).returncode  # noqa: S603 - our own words


def main(arguments: list[str]) -> int:
    """Do what the first word says; the exit code."""
    try:
        match arguments:
            case ["build"]:
                sys.stdout.write(f"{build()}\n")
            case ["python"]:
                sys.stdout.write(f"{python()}\n")
            case ["test", *options]:
                return test(options)
            case _:
                sys.stderr.write(__doc__ or "")
                return 2
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"pip failed with exit code {error.returncode}; see above\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
