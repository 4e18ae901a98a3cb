"""Which client does what: a table that is made of tests of real clients, docs/clients-matrix.md.

    PYTHONPATH=tests python -m support.client_matrix    # `make clients`: run them, write the table

A test of `tests/clients` has marks: `client("openai")`, mostly one for its file, and
`feature("tools", "streams")`. A cell is green if every test with its two marks passed, with the
version that a lock names. Where one fails, the cell is red; a cell that was green and is not any
more makes the run fail, and tests/clients/test_matrix.py fails if the table does not fit the marks.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
TABLE = ROOT / "docs" / "clients-matrix.md"
PASSED, FAILED = "✓", "✗"
FEATURES = (
    "models", "chat", "streams", "tools", "schema", "vision", "thinking", "embeddings", "rerank",
    "images", "responses", "batches", "tokens", "resume", "cancel", "errors", "edits",
)  # fmt: skip
INTRODUCTION = f"""\
# Clients and features

Written by `make clients`, which runs each client, unmodified and in the version that is locked,
against a running fleet. {PASSED}: all tests of the feature passed, {FAILED}: one failed. An empty
cell has no test, mostly because the client has no such feature. How each is set up, and what
differs: [clients](clients.md).

models: lists or shows them · schema: answers of a given structure · vision: images in a chat ·
images: makes them · batches: files and batches · tokens: counts them beforehand · resume: a stream
or answer is taken up where it was left · cancel: a client that leaves or cancels ends the backend's
work · errors: raises or prints what the fleet says · edits: changes files, by tools or patches.

"""


class Client(NamedTuple):
    """A row: how the client is called, and the package whose lock has its version."""

    title: str
    package: str = ""
    lock: str = "locks/dev.txt"

    @property
    def version(self) -> str:
        if not self.package:
            return "any"
        text = (ROOT / self.lock).read_text(encoding="utf-8")
        if self.lock.endswith(".txt"):
            found = re.search(rf"^{self.package}==(\S+)", text, re.MULTILINE)
            assert found is not None, self
            return found[1]
        packages = json.loads(text)["packages"]
        return str(packages[f"node_modules/{self.package}"]["version"])


NODE = "tests/clients/node/package-lock.json"
AGENTS = "tests/clients/agents/package-lock.json"
CLIENTS = {
    "openai": Client("`openai` (Python)", "openai"),
    "anthropic": Client("`anthropic` (Python)", "anthropic"),
    "ollama": Client("`ollama` (Python)", "ollama"),
    "cohere": Client("`cohere` (Python)", "cohere"),
    "langchain": Client("`langchain-openai`", "langchain-openai"),
    "llm": Client("`llm`", "llm"),
    "openai-npm": Client("`openai` (npm)", "openai", NODE),
    "ollama-npm": Client("`ollama` (npm)", "ollama", NODE),
    "ai-compatible": Client(
        "`ai` with `@ai-sdk/openai-compatible`", "@ai-sdk/openai-compatible", NODE
    ),
    "ai-openai": Client("`ai` with `@ai-sdk/openai`", "@ai-sdk/openai", NODE),
    "claude": Client("Claude Code", "@anthropic-ai/claude-code", AGENTS),
    "codex": Client("Codex", "@openai/codex", AGENTS),
    "aider": Client("aider", "aider-chat", "locks/agents/aider.txt"),
    "opencode": Client("opencode", "opencode-linux-x64-baseline", AGENTS),
    "continue": Client("Continue (`cn`)", "@continuedev/cli", AGENTS),
    "open-webui": Client("Open WebUI", "open-webui", "locks/agents/open-webui.txt"),
    "curl": Client("curl"),
}

Cell = tuple[str, str]
"""A client and a feature."""
COLLECTED = pytest.StashKey[set[Cell] | None]()
"""The cells of all tests of the folder; None if a run has not collected all of them."""


def cells_of(item: pytest.Item) -> list[Cell]:
    """The cells that a test is for; raises UsageError for a mark that names no row or column."""
    clients = [name for mark in item.iter_markers("client") for name in mark.args]
    features = [name for mark in item.iter_markers("feature") for name in mark.args]
    unknown = {*clients, *features} - {*CLIENTS, *FEATURES}
    if unknown or (features and not clients):
        raise pytest.UsageError(
            f"{item.nodeid}: give client(...) and feature(...), of those that "
            f"{Path(__file__).name} names; not {sorted(unknown)}"
        )
    return [(client, feature) for client in clients for feature in features]


def render(cells: Mapping[Cell, str]) -> str:
    """The document, with the sign of each cell."""
    lines = ["| client | version | " + " | ".join(FEATURES) + " |"]
    lines.append("|---|---|" + ":-:|" * len(FEATURES))
    for key, client in CLIENTS.items():
        signs = (cells.get((key, feature), "") for feature in FEATURES)
        lines.append(f"| {client.title} | {client.version} | " + " | ".join(signs) + " |")
    return INTRODUCTION + "\n".join(lines) + "\n"


def green_in(text: str) -> set[Cell]:
    """The green cells of a document."""
    rows = {client.title: key for key, client in CLIENTS.items()}
    found = set()
    for line in text.splitlines():
        title, _, *signs = [each.strip() for each in line.strip("|").split("|")] + [""]
        if key := rows.get(title):
            pairs = zip(FEATURES, signs, strict=False)
            found |= {(key, feature) for feature, sign in pairs if sign == PASSED}
    return found


class Recorder:
    """A plugin of pytest that collects how the tests of each cell ended."""

    def __init__(self) -> None:
        self.ended: dict[Cell, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test: each can fail, the call passes."""
        for client, feature in dict(report.user_properties).get("cells", ()):  # type: ignore[call-overload]
            if report.when == "call" or report.failed:
                self.ended[client, feature].add(report.outcome)

    def cells(self) -> dict[Cell, str]:
        """The sign of each cell; none where all tests were skipped."""
        signs = {"failed": FAILED, "passed": PASSED}
        order = ("failed", "passed")
        return {
            cell: signs[next(each for each in order if each in outcomes)]
            for cell, outcomes in self.ended.items()
            if outcomes & {*order}
        }


def main(options: Iterable[str]) -> int:
    """Run the clients and write the table; returns an exit code."""
    recorder = Recorder()
    folder = str(TESTS / "clients")
    ignored = f"--ignore={TESTS / 'clients' / 'test_matrix.py'}"
    code = int(pytest.main(["-q", folder, ignored, "-m", "client", *options], [recorder]))
    cells = recorder.cells()
    before = green_in(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else set()
    lost = sorted(before - {cell for cell, sign in cells.items() if sign == PASSED})
    TABLE.write_text(render(cells), encoding="utf-8")
    for client, feature in lost:
        sys.stderr.write(f"was green and is not any more: {client}, {feature}\n")
    return code or bool(lost)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["-n", "2", "--dist", "loadfile"]))
