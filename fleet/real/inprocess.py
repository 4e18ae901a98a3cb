"""Installs the libraries that run models inside a worker into a virtual environment of the cache.

    python -m fleet.real.inprocess build      install them into the cache, unless they are there
    python -m fleet.real.inprocess test       run the tests that need them (from a checkout)
    python -m fleet.real.inprocess python     print the path of the environment's Python

They are large: llama-cpp-python compiles for minutes, openvino has 250 MB. The environment also has
the packages of this Python. `LLM_FLEET_CACHE` names another cache.
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
"""Compiled with the tools of the first lock file."""
TESTS: Final = "tests/real/test_inprocess_{}.py"
SUBJECTS: Final = ("llama", "openvino", "residence", "fleet")
REQUIRE: Final = "LLM_FLEET_INPROCESS"
"""If set to `require`, tests fail if their library is missing."""


def environment() -> Path:
    """Path of the environment, which may not exist yet."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    locks = hashlib.sha256(b"".join(each.read_bytes() for each in (*WHEELS, SOURCE))).hexdigest()
    return cache_folder() / f"inprocess-{locks[:12]}-py{version}"


def python() -> Path:
    """Path of its interpreter."""
    return environment() / "bin" / "python"


def build() -> Path:
    """Create the environment unless it exists; returns the path of its interpreter.

    Raises subprocess.CalledProcessError if pip fails; its output is on stderr.
    """
    folder = environment()
    with alone(folder):
        if not (folder / ".complete").is_file():
            venv.create(folder, with_pip=True, clear=True)
            for lock in WHEELS:
                _install(lock, "--only-binary", ":all:")
            _install(SOURCE, "--no-build-isolation", "--no-binary", ":all:")
            (folder / ".complete").touch()
        _add_packages(folder)
    return python()


def _install(lock: Path, *how: str) -> None:
    """Install the packages of a lock file with the installed build tools; nothing is resolved."""
    command = [str(python()), "-m", "pip", "install", *LOCKED, *how, "-r", str(lock)]
    path = f"{python().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"PATH": path})  # noqa: S603 - our own words


def _add_packages(folder: Path) -> None:
    """Add this Python's packages to the environment; every time, as checkouts may share it."""
    ours = sysconfig.get_path("purelib")
    theirs = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # addsitedir, not only the path: an editable install is a .pth file itself.
    line = f"import site; site.addsitedir({ours!r})\n"
    Path(theirs, "beside.pth").write_text(line, encoding="utf-8")


def test(options: list[str]) -> int:
    """Run the tests; returns the exit code of pytest."""
    files = [TESTS.format(subject) for subject in SUBJECTS]
    command = [str(build()), "-m", "pytest", *files, *options]
    return subprocess.run(command, check=False, env=os.environ | {REQUIRE: "require"}).returncode  # noqa: S603 - our own words


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
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
