"""ARCHITECTURE.md's map says what each folder imports, and CONTRIBUTING.md names real contracts."""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.shape import PACKAGES, PRODUCT, ROOT, name_of, tree

EVERYWHERE = {"contract", "pydantic", "pydantic_core", "typing_extensions"}
"""What every folder may import, as the text above the map says."""
ROW = re.compile(r"^\| (`[^|]+`) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def rows() -> dict[tuple[str, ...], set[str]]:
    """What each row of the map allows, by its folders; a short name is a sibling's."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## The map")[2]
    found = {}
    for names, allowed in ROW.findall(text.partition("\n## ")[0]):
        folders = tuple(name.rstrip("/") for name in re.findall(r"`([^`]+)`", names))
        package = folders[0].split("/")[0]
        found[folders] = {resolved(package, each.strip()) for each in allowed.split(",")}
    return found


def resolved(package: str, name: str) -> str:
    sibling = f"{package}/{name}"
    return next((each for each in (sibling, f"{sibling}.py") if (ROOT / each).exists()), name)


ROWS = rows()
PLACES = [folder for folders in ROWS for folder in folders]


def place_of(path: Path) -> str:
    """The row of a file: the longest folder that contains it."""
    name = name_of(path)
    inside = [place for place in PLACES if name == place or name.startswith(f"{place}/")]
    return max(inside, key=len, default=name)


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all imports of a file, also of those inside functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def target_of(dotted: str) -> str | None:
    """The row of the map, or the library, that an import reaches; None: the standard library."""
    parts = dotted.split(".")
    if parts[0] not in PACKAGES:
        return None if parts[0] in sys.stdlib_module_names else parts[0]
    names = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
    files = (ROOT / f"{name}{end}" for name in names for end in (".py", "/__init__.py"))
    return place_of(next(file for file in files if file.exists()))


IMPORTS: dict[str, set[str]] = defaultdict(set)
for file in PRODUCT:
    IMPORTS[place_of(file)] |= {target_of(dotted) or "" for dotted in imported(file)}


@pytest.mark.parametrize("folders", ROWS, ids=lambda folders: folders[0])
def test_a_folder_imports_what_the_map_says(folders: tuple[str, ...]) -> None:
    found = set[str]().union(*(IMPORTS[folder] for folder in folders))

    assert found - EVERYWHERE - {"", *folders} == ROWS[folders] - EVERYWHERE


def test_every_file_is_in_the_map() -> None:
    assert {place_of(path) for path in PRODUCT} <= set(PLACES)


def test_contributing_names_contracts_that_exist() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {each["name"] for each in settings["tool"]["importlinter"]["contracts"]}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r'contract "([^"]+)"', text))

    assert named
    assert named <= contracts
