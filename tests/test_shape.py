"""The shape of the code: sizes, names, import cycles, first sentences, nothing left over."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.shape import (
    PRODUCT,
    ROOT,
    Measure,
    functions,
    length,
    lines,
    measures,
    name_of,
    tree,
)

TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_FILE = 500
LONGEST_FUNCTION = 40
BANNED = {"utils", "helpers", "common", "base", "core", "manager", "misc"}
CLOSES = re.compile(r"\.(cleanup|close|aclose|stop|terminate|kill|shutdown|send_signal)\(")
LEFT_OVER = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


@pytest.mark.parametrize("measure", measures(), ids=lambda measure: measure.name)
def test_the_tree_keeps_its_bounds(measure: Measure) -> None:
    assert measure.value <= measure.bound, measure.detail


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_a_file_opens_with_a_sentence_and_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    opening = (ast.get_docstring(tree(path)) or "").split("\n\n")[0]

    assert re.search(r"\w.*[.:]$", opening, re.DOTALL)
    assert lines(path) <= LONGEST_FILE
    assert path.stem not in BANNED
    assert not LEFT_OVER.search(text)


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    long = {function.name: length(function) for function in functions(path)}

    assert {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_nothing_is_swallowed(path: Path) -> None:
    silent = [
        handler.lineno
        for handler in ast.walk(tree(path))
        if isinstance(handler, ast.ExceptHandler)
        and (handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"})
        and all(isinstance(node, ast.Pass) for node in handler.body)
    ]

    assert silent == []


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_can_fail(path: Path) -> None:
    checks = (ast.Assert, ast.With, ast.AsyncWith)
    toothless = [
        function.name
        for function in functions(path)
        if function.name.startswith("test_")
        and not any(isinstance(node, checks) for node in ast.walk(function))
        and "assert" not in ast.unparse(function)
    ]

    assert toothless == []


def test_every_redis_key_is_in_the_architecture() -> None:
    architecture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    names = (ROOT / "contract" / "redis_keys.py").read_text(encoding="utf-8")
    keys = {re.sub(r"\{(\w+)\}", r"<\1>", key) for key in re.findall(r'f?"(fleet:[^"]+)"', names)}

    assert keys
    assert set() == {key for key in keys if key not in architecture}


def makers_of(name: str) -> set[str]:
    """Files of the product that make one of these."""
    return {
        name_of(path)
        for path in PRODUCT
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name
    }


def test_failed_is_said_by_a_run_or_by_who_took_the_job_away() -> None:
    found = {each for each in makers_of("Failed") if "/scripted" not in each}

    # The reader writes none: it says what the record of a job does whose last event is damaged.
    assert found == {"workers/run.py", "relay/leases.py", "relay/compaction/log_reader.py"}


def test_a_process_has_one_list_of_open_calls() -> None:
    assert makers_of("OpenCalls") == {"api_shim/__main__.py", "api_shim/app.py"}


MIRRORED = [
    path
    for name in ("api_shim", "contract", "outbound", "relay", "telemetry", "workers")
    for path in (ROOT / "tests" / name).rglob("test_*.py")
]


@pytest.mark.parametrize("path", MIRRORED, ids=name_of)
def test_a_test_file_has_the_name_of_its_module_or_lists_its_subjects(path: Path) -> None:
    folder = ROOT / path.parent.relative_to(ROOT / "tests")
    words = path.stem.split("_")[1:]
    names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
    modules = [folder / f"{each}.py" for name in names for each in (name, f"__{name}__")]
    listed = re.search(r"^Subjects: (.*)\.$", ast.get_docstring(tree(path)) or "", re.MULTILINE)
    subjects = [ROOT / each for each in listed[1].split(", ")] if listed else []

    assert any(each.exists() for each in modules) or subjects
    assert [each for each in subjects if not each.exists()] == []


def _left_open(body: Sequence[ast.stmt]) -> Iterator[str]:
    """What follows a `yield` that no `finally` follows, in a body and in those inside of it."""
    for at, each in enumerate(body):
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Yield):
            yield from (ast.unparse(after) for after in body[at + 1 :])
        if isinstance(each, ast.With | ast.AsyncWith):
            yield from _left_open(each.body)


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_what_a_test_has_started_ends_although_it_fails(path: Path) -> None:
    found = {
        function.name: closing
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and any("contextmanager" in ast.unparse(each) for each in function.decorator_list)
        and (closing := [each for each in _left_open(function.body) if CLOSES.search(each)])
    }

    assert found == {}
