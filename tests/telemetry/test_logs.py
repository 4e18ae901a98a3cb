"""What a process writes to its log, by the format of its settings."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from pydantic import SecretStr
from support.up import ROOT, environment
from typing_extensions import override

from telemetry.logs import LogLines, set_up_logs
from telemetry.settings import LogSettings

Written = Callable[[], list[str]]
SetUp = Callable[..., Written]
log = logging.getLogger("a.module")


@pytest.fixture
def set_up() -> Iterator[SetUp]:
    """Set up logs that are written to memory; the result returns their lines so far."""
    root = logging.getLogger()
    before, level = root.handlers, root.level

    def into_memory(format: str, *secrets: str) -> Written:
        out = StringIO()
        set_up_logs(
            LogSettings(log_format=format),
            target=logging.StreamHandler(out),
            secrets=[SecretStr(secret) for secret in secrets],
        )

        def lines() -> list[str]:
            root.handlers[0].flush()
            return out.getvalue().splitlines()

        return lines

    yield into_memory
    root.handlers, root.level = before, level


def test_a_line_for_people_names_its_facts(set_up: SetUp) -> None:
    lines = set_up("human")
    log.info("job %s", "done", extra={"facts": {"job": "1f", "ms": 1.5, "model": "a b", "x": None}})
    time, _, rest = lines()[0].partition(" ")

    assert time.endswith("Z")
    assert rest == 'INFO a.module job done job=1f ms=1.5 model="a b"'


def test_a_line_for_programs_is_one_object(set_up: SetUp) -> None:
    lines = set_up("json")
    log.warning("late", extra={"facts": {"job": "1f", "at": ["a.py:1", 2]}})
    found = json.loads(lines()[0])

    assert found.pop("timestamp").endswith("Z")
    assert found == {
        "level": "warning", "logger": "a.module", "event": "late", "job": "1f", "at": ["a.py:1", 2]
    }  # fmt: skip


@pytest.mark.parametrize("format", ["human", "json"])
def test_no_text_can_look_like_another_line(format: str, set_up: SetUp) -> None:
    lines = set_up(format)
    log.info("a\nb\x1b[31m\x9b2J\x7f", extra={"facts": {"model": "c\r\u202ed"}})

    assert len(lines()) == 1
    assert not set("\x1b\r\x9b\x7f\u202e") & set(lines()[0])
    if format == "json":
        found = json.loads(lines()[0])
        assert (found["event"], found["model"]) == ("a\nb\x1b[31m\x9b2J\x7f", "c\r\u202ed")


@pytest.mark.parametrize("format", ["human", "json"])
def test_a_traceback_belongs_to_its_line(format: str, set_up: SetUp) -> None:
    lines = set_up(format)
    try:
        raise ValueError("first\n2026-11-29T00:00:00Z INFO forged")
    except ValueError:
        log.exception("it failed")
    first, *others = lines()

    assert "it failed" in first
    assert all(line.startswith("    ") for line in others)
    assert "ValueError: first" in "\n".join(lines())


@pytest.mark.parametrize("format", ["human", "json"])
def test_secrets_are_redacted_wherever_they_are(format: str, set_up: SetUp) -> None:
    lines = set_up(format, "hunter22", "redis://:pass%20word@box/0")
    log.info("a %s", "hunter22", extra={"facts": {"b": ["pass word"], "c": "Bearer abcdefgh"}})
    try:
        raise ValueError("https://me:let-me-in@box/")
    except ValueError:
        log.exception("d")
    text = "\n".join(lines())

    assert "***" in text
    assert [
        each for each in ("hunter22", "pass word", "abcdefgh", "let-me-in") if each in text
    ] == []


def test_the_facts_of_other_libraries_are_not_written(set_up: SetUp) -> None:
    lines = set_up("json")
    log.info("task failed", extra={"data": {"kwargs": "what a client sent"}})

    assert "client" not in lines()[0]


class Stuck(logging.Handler):
    """A terminal that accepts nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.messages: list[str] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.go.wait(10)
        self.messages.append(record.getMessage())


def test_a_stuck_terminal_stops_nobody_and_lost_lines_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("telemetry.logs._WAITING", 3)
    terminal = Stuck()
    lines = LogLines(terminal)
    for number in range(100):
        lines.handle(logging.makeLogRecord({"msg": f"{number}"}))
    terminal.go.set()
    lines.flush()
    lines.handle(logging.makeLogRecord({"msg": "later"}))
    lines.flush()

    assert terminal.messages[0] == "0"
    assert terminal.messages[-2:] == ["lines of this log were dropped", "later"]
    assert len(terminal.messages) < 10


def test_what_was_logged_last_is_written_at_the_end_of_the_process() -> None:
    program = (
        "import logging; from telemetry.logs import set_up_logs;"
        "from telemetry.settings import LogSettings; set_up_logs(LogSettings());"
        "logging.getLogger('x').error('the last line')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True,
        text=True, timeout=30, check=True,
    )  # fmt: skip

    assert ended.stderr.endswith(" ERROR x the last line\n")
