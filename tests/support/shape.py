"""Measures of the source tree: folder and file sizes, import cycles, repeated names.

`make shape` prints them beside their bounds; `tests/test_shape.py` holds the bounds.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet")
PRODUCT = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
ROLES = frozenset(
    {
        "__init__", "__main__", "adapter", "app", "catalog", "chunks", "errors", "events", "images",
        "models", "requests", "routes", "schemas", "settings", "shapes", "wire",
        "chat_request", "chat_response", "chat_routes", "request_fields",
    }
)  # fmt: skip
"""File names that say what a file is for its folder, whatever the subject of that folder."""
SUBJECTS = frozenset(
    {
        "backends", "batches", "chat", "dead_letters", "embed", "embeddings", "jobs", "keys",
        "queues", "roster", "usage", "gemini", "llamacpp_router", "llamaswap", "lmstudio", "vllm",
        "rerank",
    }
)  # fmt: skip
"""Nouns of the contract and names of servers: the same subject, seen by another layer."""

LARGE = {
    "contract": "a module per kind of value that crosses a process boundary",
    "fleet/cli/commands": "a module per command",
    "relay": "a module per subject in Redis",
    "workers": "the parts of one worker",
}
"""Folders that may have more than 16 modules, and why."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = Mapping[str, frozenset[str]]


class Measure(NamedTuple):
    """One row of `make shape`."""

    name: str
    value: int
    bound: int
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether the value is within its bound."""
        return self.value <= self.bound


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """The path of a file from the repository's root."""
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[Function]:
    """Every function and method of a file."""
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def length(node: Function) -> int:
    """Lines of a function, with its signature and docstring."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def lines(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def module_of(path: Path) -> str:
    """The dotted name under which a file is imported."""
    dotted = name_of(path).removesuffix(".py").replace("/", ".")
    return dotted.removesuffix(".__init__")


def folders() -> dict[str, list[Path]]:
    """Modules by folder, `__init__.py` not counted."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in PRODUCT:
        if path.name != "__init__.py":
            found[name_of(path.parent)].append(path)
    return dict(found)


def imports() -> Graph:
    """Which module imports which at the top of its file: imports in functions are not counted."""
    modules = {module_of(path) for path in PRODUCT}
    found: dict[str, frozenset[str]] = {}
    for path in PRODUCT:
        targets = {target for node in tree(path).body for target in _targets(node, modules)}
        found[module_of(path)] = frozenset(targets - {module_of(path)})
    return found


def _targets(node: ast.stmt, modules: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if inner in modules or node.module in modules:
                yield inner if inner in modules else node.module


def by_folder(graph: Graph) -> Graph:
    """The same between folders. A file beside subfolders (`workers/run.py`) is its own node."""
    packages = {module_of(path) for path in PRODUCT if path.name == "__init__.py"}
    parents = {package.rpartition(".")[0] for package in packages}

    def home(module: str) -> str:
        folder = module if module in packages else module.rpartition(".")[0]
        return module if folder in parents else folder

    found: dict[str, set[str]] = defaultdict(set)
    for module, targets in graph.items():
        found[home(module)] |= {home(target) for target in targets} - {home(module)}
    return {folder: frozenset(targets) for folder, targets in found.items()}


def cycles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that reach each other (strongly connected, two or more)."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {
        tuple(sorted({node} | {other for other in reach[node] if node in reach.get(other, ())}))
        for node in graph
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        for target in graph.get(left.pop(), ()):
            if target not in found:
                found.add(target)
                left.append(target)
    return found


def repeated_classes() -> dict[str, list[str]]:
    """Public class names that more than one file defines, with the files."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in PRODUCT:
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(name_of(path))
    return {name: files for name, files in sorted(found.items()) if len(files) > 1}


def homonyms() -> dict[str, list[str]]:
    """File names that occur more than once for different subjects, with the files.

    A module of `fleet/cli/commands/` is called as its command is.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for path in PRODUCT:
        if path.stem not in ROLES | SUBJECTS and path.parent.name != "commands":
            found[path.stem].append(name_of(path))
    return {name: files for name, files in sorted(found.items()) if len(files) > 1}


def share(values: Iterable[int], percent: int) -> int:
    """The value below which that many percent lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def measures() -> list[Measure]:
    """Every measure of the tree, with its bound."""
    sizes = {folder: len(files) for folder, files in folders().items()}
    fullest = max(sizes, key=lambda folder: sizes[folder])
    crowded = sorted(name for name, size in sizes.items() if size > 16 and name not in LARGE)
    long = {name_of(path): lines(path) for path in PRODUCT}
    spans = [length(function) for path in PRODUCT for function in functions(path)]
    graph = imports()
    circles, folder_circles = cycles(graph), cycles(by_folder(graph))
    twice, same = repeated_classes(), homonyms()
    small = [path for path in PRODUCT if path.name != "__init__.py" and lines(path) <= 60]
    return [
        Measure("modules in the fullest folder", sizes[fullest], 25, fullest),
        Measure("other folders of more than 16 modules", len(crowded), 0, ", ".join(crowded)),
        Measure("import cycles of files", len(circles), 0, _joined(circles)),
        Measure("import cycles of folders", len(folder_circles), 0, _joined(folder_circles)),
        Measure("class names defined twice", len(twice), 0, ", ".join(twice)),
        Measure("file names of two subjects", len(same), 0, ", ".join(same)),
        Measure("files of 60 lines or fewer, of 100", 100 * len(small) // len(PRODUCT), 8),
        Measure(
            "lines of the longest file", max(long.values()), 500, max(long, key=long.__getitem__)
        ),
        Measure("lines of a file, p90", share(long.values(), 90), 300),
        Measure("lines of the longest function", max(spans), 40),
        Measure("lines of a function, p90", share(spans, 90), 20),
    ]


def _joined(groups: list[list[str]]) -> str:
    return "; ".join(" <-> ".join(group) for group in groups)


def main() -> int:
    """Print the measures, a row each; the exit code is 1 where one is out of its bound."""
    rows = measures()
    for row in rows:
        mark = " " if row.holds else "!"
        sys.stdout.write(
            f"{mark} {row.name:<38} {row.value:>5}  (at most {row.bound})  {row.detail}\n"
        )
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
