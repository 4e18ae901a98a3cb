"""What the documents name exists: files, folders, links, members of classes and settings."""

import ast
import re
from pathlib import Path

import pytest
from support.shape import PRODUCT, ROOT, name_of, tree

DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "ARCHITECTURE.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "relay" / "lua" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
FOLDERS = (
    *("contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet"),
    *("tests", "bench", "docs", "compose", "locks"),
)
FILES = {each.name for folder in FOLDERS for each in (ROOT / folder).rglob("*.*")}


def members() -> dict[str, set[str]]:
    """Names that each class of the product defines, by the class's name."""
    found: dict[str, set[str]] = {}
    for path in PRODUCT:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(names_in(node))
    return found


def names_in(defined: ast.ClassDef) -> set[str]:
    names = set()
    for node in ast.walk(defined):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case _:
                pass
    return names


MEMBERS = members()
FOREIGN = {("Output", "object")}
"""Members of other projects' classes whose name is also one of ours (`ai` of npm)."""
SETTINGS = {
    "FLEET_TEST_FORKS",  # of the tests
    "FLEET_TEST_ACL",
    "FLEET_TRUST",  # says which fleet.toml is read, so it is none of its settings
    *re.findall(r"FLEET_[A-Z0-9_]+", (ROOT / "compose" / "demo.env").read_text(encoding="utf-8")),
}


def code_in(path: Path) -> list[str]:
    """Texts in single backticks."""
    return re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_document_names_files_that_exist(path: Path) -> None:
    named = [each for each in code_in(path) if re.fullmatch(r"(?:[\w.-]+/)*[\w-]+\.(py|lua)", each)]

    gone = [each for each in named if not exists(path, each)]

    assert gone == []


def exists(document: Path, name: str) -> bool:
    """Whether a path exists from the root or the document's folder, or a file has that name."""
    if "/" not in name:
        return name in FILES
    return (ROOT / name).is_file() or (document.parent / name).is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_document_names_folders_that_exist(path: Path) -> None:
    named = [each for each in code_in(path) if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w/]*", each)]

    assert [each for each in named if not (ROOT / each).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_document_links_to_files_that_exist(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))

    assert [each for each in links if not (":" in each or (path.parent / each).exists())] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_document_names_members_that_exist(path: Path) -> None:
    named = [
        match.groups() for each in code_in(path) if (match := re.match(r"([A-Z]\w+)\.(\w+)", each))
    ]

    gone = [pair for pair in named if pair[0] in MEMBERS and pair[1] not in MEMBERS[pair[0]]]

    assert set(gone) <= FOREIGN


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_document_names_settings_that_exist(path: Path) -> None:
    named = re.findall(r"(?<!LLM_)FLEET_[A-Z0-9_]+", path.read_text(encoding="utf-8"))

    assert set(named) - SETTINGS == set()


def test_each_decision_has_a_number_of_its_own() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
    numbers = [name[:4] for name in names]
    titles = {
        name: (ROOT / "docs" / "adr" / name).read_text(encoding="utf-8").split(maxsplit=2)[1]
        for name in names
    }

    assert len(set(numbers)) == len(numbers), names
    assert {name: f"{int(name[:4])}." for name in names} == titles
