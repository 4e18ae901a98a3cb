"""Docstrings of the public API: none is missing, and each names the errors and the units.

A function that awaits a call of a relay connection names RelayUnavailable.

ruff's `D` rules keep their form. Its `DOC501` wants a `Raises:` section even for one error; here a
sentence that names the error is enough.
"""

import ast
import builtins
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.shape import PRODUCT, Function, name_of, tree

from contract import errors

CHECKED = ("contract", "relay", "fleet/client")
FILES = [
    path for path in PRODUCT if name_of(path).startswith(tuple(f"{name}/" for name in CHECKED))
]

ERRORS = {name for name, each in vars(errors).items() if inspect.isclass(each)} | {
    name
    for name, each in vars(builtins).items()
    if inspect.isclass(each) and issubclass(each, Exception)
}
QUANTITY = re.compile(
    r"(^|_)(age|at|deadline|delay|duration|grace|interval|now|patience|timeout|ttl|until)$"
)
ON_REDIS = re.compile(r"(^|[._])connection\.(call|calls|command|pipeline)$")
"""Methods of relay.connection.Connection that raise RelayUnavailable."""
UNIT = re.compile(
    r"\b((milli)?seconds?|minutes?|bytes?|tokens?|characters?|pixels?|unix)\b", re.IGNORECASE
)


def faults(module: ast.Module) -> list[str]:
    """`<line> <name>: <what is missing>` for each fault of a file."""
    found = [] if ast.get_docstring(module) else ["1 module: no docstring"]
    makers = _error_makers(module)
    for name, node in _public(module):
        text = ast.get_docstring(node)
        if not text:
            found.append(f"{node.lineno} {name}: no docstring")
        elif not isinstance(node, ast.ClassDef):
            found += [
                f"{line} {name}: raises {error}, which its docstring does not name"
                for error, line in _first_lines(_raised(node, makers)).items()
                if not re.search(rf"\b{error}\b", text)
            ]
            found += [
                f"{each.lineno} {name}: no unit of {each.arg}, in its name or in the docstring"
                for each in _quantities(node)
                if not UNIT.search(text)
            ]
    return found


def _public(
    owner: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Classes, functions and methods without an underscore; `@overload` and `@override` aside."""
    for node in owner.body:
        if not isinstance(node, (ast.ClassDef, Function)) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(each) for each in node.decorator_list}
        if decorators & {"overload", "override"}:
            continue
        yield f"{prefix}{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from _public(node, f"{prefix}{node.name}.")


def _error_makers(module: ast.Module) -> dict[str, str]:
    """Functions of this file that return an error to raise: `def no_file(...) -> UnknownFile`."""
    return {
        node.name: node.returns.id
        for node in module.body
        if isinstance(node, Function)
        and isinstance(node.returns, ast.Name)
        and node.returns.id in ERRORS
    }


def _raised(node: ast.AST, makers: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Errors that a body raises by name, or by a call of Redis, and does not catch by name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (Function, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            made = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            error = makers.get(ast.unparse(made), ast.unparse(made))
            if error in ERRORS:
                yield child.lineno, error
        if isinstance(child, ast.Await) and ON_REDIS.search(_called(child.value)):
            yield child.lineno, "RelayUnavailable"
        caught = _caught(child) if isinstance(child, ast.Try) else set()
        yield from (each for each in _raised(child, makers) if each[1] not in caught)


def _called(node: ast.expr) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def _first_lines(raised: Iterator[tuple[int, str]]) -> dict[str, int]:
    """Each error, with the first line that raises it."""
    lines: dict[str, int] = {}
    for line, error in raised:
        lines.setdefault(error, line)
    return lines


def _caught(block: ast.Try) -> set[str]:
    types = [each.type for each in block.handlers if each.type is not None]
    return {name.id for type in types for name in ast.walk(type) if isinstance(name, ast.Name)}


def _quantities(node: Function) -> Iterator[ast.arg]:
    """Numeric parameters whose names are of a time or a size, without a unit."""
    arguments = node.args
    for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        annotation = "" if each.annotation is None else ast.unparse(each.annotation)
        if QUANTITY.search(each.arg) and re.search(r"\b(int|float)\b", annotation):
            yield each


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_public_api_is_documented(path: Path) -> None:
    assert [f"{name_of(path)}:{fault}" for fault in faults(tree(path))] == []


def test_each_checked_package_has_files() -> None:
    assert {name_of(path).split("/")[0] for path in FILES} == {
        each.split("/")[0] for each in CHECKED
    }


SAMPLE = '''
"""A module."""

def undocumented(): ...

def silent(text):
    """Parse a text."""
    if not text:
        raise ValueError("empty")
    raise QueueFull("full") from None

def named(text):
    """Parse a text; raises ValueError."""
    raise ValueError(text)

def caught(text):
    """Parse a text."""
    try:
        raise ValueError(text)
    except ValueError:
        return None

def _no_file(id) -> UnknownFile:
    return UnknownFile(id)

def _private():
    raise ValueError

class Store:
    def get(self, id):
        """Return a file."""
        raise _no_file(id)

    def keep(self, name, timeout: float, ttl_s: float):
        """Keep a name."""

    def wait(self, timeout: float):
        """Wait; `timeout` is in seconds."""

    async def forget(self, name):
        """Forget a name."""
        await self._connection.command("DEL", name)
        await self._connection.command("ZREM", "names", name)

    async def get_or_none(self, name):
        """Return a value; None while Redis is away."""
        try:
            return await self._connection.command("GET", name)
        except RelayUnavailable:
            return None
'''


def test_what_is_missing_is_found() -> None:
    assert faults(ast.parse(SAMPLE)) == [
        "4 undocumented: no docstring",
        "9 silent: raises ValueError, which its docstring does not name",
        "10 silent: raises QueueFull, which its docstring does not name",
        "29 Store: no docstring",
        "32 Store.get: raises UnknownFile, which its docstring does not name",
        "34 Store.keep: no unit of timeout, in its name or in the docstring",
        "42 Store.forget: raises RelayUnavailable, which its docstring does not name",
    ]
    assert faults(ast.parse("x = 1")) == ["1 module: no docstring"]
