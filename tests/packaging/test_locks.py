"""The lock files: whole, hashed, of one mind, and bound to no index."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fleet.real import llama_server, sd_server
from fleet.real.build import LOCKS as LOCKS_OF_REAL
from fleet.real.build import Recipe

TOP = Path(__file__).parents[2]
LOCKS = sorted([*(TOP / "locks").glob("*.txt"), *LOCKS_OF_REAL.glob("*.txt")])
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
COVERED = {
    "run": [],
    "image": ["local-embed", "oidc"],
    "demo": ["demo"],
    "dev": list(EXTRAS),
}
"""Which extras each lock of this project holds, beside what it always needs."""


def name_of(path: Path) -> str:
    return path.stem


def requirements(path: Path) -> list[tuple[Requirement, list[str]]]:
    entries = path.read_text().replace("\\\n", " ").splitlines()
    return [
        (Requirement(entry.partition(" --hash")[0]), re.findall(r"--hash=(\S+)", entry))
        for entry in entries
    ]


def versions(path: Path) -> dict[tuple[str, str], str]:
    """By name and marker: a package may stand there once for each version of Python."""
    return {
        (canonicalize_name(wanted.name), str(wanted.marker or "")): str(wanted.specifier)
        for wanted, _ in requirements(path)
    }


def declared(extras: list[str]) -> list[Requirement]:
    words = [*PROJECT["dependencies"], *(word for extra in extras for word in EXTRAS[extra])]
    found = [Requirement(word) for word in words]
    own = [extra for each in found if each.name == PROJECT["name"] for extra in each.extras]
    rest = [each for each in found if each.name != PROJECT["name"]]
    return [*rest, *(declared(own) if own else [])]


@pytest.mark.parametrize("path", LOCKS, ids=name_of)
def test_every_entry_is_one_version_with_its_hashes(path: Path) -> None:
    entries = requirements(path)

    assert entries
    assert all(re.fullmatch(r"==[^*,]+", str(wanted.specifier)) for wanted, _ in entries)
    assert all(hashes and all(h.startswith("sha256:") for h in hashes) for _, hashes in entries)


@pytest.mark.parametrize("path", LOCKS, ids=name_of)
def test_a_lock_names_no_index(path: Path) -> None:
    assert not re.search(r"://|^\s*-", path.read_text().replace("    --hash", ""), re.MULTILINE)


@pytest.mark.parametrize("lock", COVERED)
def test_what_is_declared_is_locked_and_fits(lock: str) -> None:
    locked = versions(TOP / "locks" / f"{lock}.txt")
    for wanted in declared(COVERED[lock]):
        found = [pin for (name, _), pin in locked.items() if name == canonicalize_name(wanted.name)]

        assert found, f"{wanted} is declared and not locked: make lock"
        assert all(wanted.specifier.contains(pin.removeprefix("==")) for pin in found)


@pytest.mark.parametrize("lock", ["run", "image", "demo"])
def test_a_small_lock_is_a_part_of_the_large_one(lock: str) -> None:
    whole = versions(TOP / "locks" / "dev.txt")
    part = versions(TOP / "locks" / f"{lock}.txt")

    assert {name: pin for (name, _), pin in part.items()}.items() <= {
        name: pin for (name, _), pin in whole.items() if name in {each for each, _ in part}
    }.items()


def test_the_demo_installs_no_tool_of_a_developer() -> None:
    demo = {name for name, _ in versions(TOP / "locks" / "demo.txt")}

    assert not demo & {"ruff", "mypy", "pytest", "coverage", "schemathesis", "langchain-openai"}


def test_what_builds_the_wheel_is_locked() -> None:
    build = tomllib.loads((TOP / "pyproject.toml").read_text())["build-system"]["requires"]
    locked = {name for name, _ in versions(TOP / "locks" / "build.txt")}

    assert {Requirement(word).name for word in build} <= locked


@pytest.mark.parametrize("recipe", [llama_server.RECIPE, sd_server.RECIPE])
def test_a_server_is_built_from_the_archive_that_is_locked(recipe: Recipe) -> None:
    ((wanted, _),) = requirements(LOCKS_OF_REAL / f"{recipe.package}.txt")

    assert (wanted.name, str(wanted.specifier)) == (recipe.package, f"=={recipe.version}")
