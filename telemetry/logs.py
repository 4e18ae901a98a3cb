"""The logs of a process: lines for people or for programs, written by a thread of their own.

Modules log with the standard library. What a program should find again are the facts of a line:

    _log.info("job ended", extra={"facts": {"job": record.id, "ms": 12.5}})

A line is formatted and written by one thread, in batches, so that logging costs a caller little
and a slow terminal or disk stops nobody. The lines that wait are bounded: others are dropped and
counted. Secrets are redacted in every line, whatever wrote it.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from queue import Empty, SimpleQueue
from typing import Any, Final

from pydantic import SecretStr
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict
from typing_extensions import override

from contract.json_lines import json_line
from telemetry.plain_text import escaped, escaped_json, known_secrets, redacted
from telemetry.settings import LogSettings
from telemetry.trace_context import current_trace

_WAITING: Final = 20_000
"""Lines that may wait to be written."""
_GATHER_S: Final = 0.05
"""Seconds for which the thread waits after the first line, so that it wakes once for many."""
_OURS: Final = frozenset({"timestamp", "level", "logger"})
"""Parts of a line that never hold a secret."""
_FLUSH_S: Final = 2.0
"""Seconds that the end of the process waits for lines that are not written yet."""
_WORD: Final = re.compile(r"[\w.:/@#+,-]+", re.ASCII)
"""A value that needs no quotes."""


class LogLines(QueueHandler):
    """Takes the records of a process, and passes them to `target` in a thread of its own."""

    def __init__(self, target: logging.Handler) -> None:
        """Start the thread; `target` formats and writes."""
        self._waiting: SimpleQueue[logging.LogRecord] = SimpleQueue()
        super().__init__(self._waiting)
        self._dropped = 0
        self._listener = _Listener(self._waiting, target)
        self._listener.start()

    @override
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make the message now, because its arguments may change; the thread does the rest.

        The trace that the task works for is a fact of every line.
        """
        if (trace := current_trace()) is not None:
            facts = getattr(record, "facts", None) or {}
            record.facts = {**facts, "trace": trace.trace_id}
        if record.args:
            record.msg, record.args = record.getMessage(), None
        return record

    @override
    def enqueue(self, record: logging.LogRecord) -> None:
        if self._waiting.qsize() >= _WAITING:
            self._dropped += 1
            return
        if self._dropped:
            lost, self._dropped = self._dropped, 0
            told = logging.makeLogRecord(
                {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING",
                 "msg": "lines of this log were dropped", "facts": {"lines": lost}}
            )  # fmt: skip
            self._waiting.put(told)
        self._waiting.put(record)

    @override
    def flush(self) -> None:
        """Wait until the lines logged so far are written, at most 2 s."""
        self._listener.flush(_FLUSH_S)


class _Listener(QueueListener):
    """The thread, a daemon."""

    def __init__(self, waiting: "SimpleQueue[logging.LogRecord]", target: logging.Handler) -> None:
        super().__init__(waiting, target)
        self._waiting = waiting

    @override
    def dequeue(self, block: bool) -> logging.LogRecord:
        with suppress(Empty):
            return self._waiting.get_nowait()
        record = self._waiting.get(block)
        time.sleep(_GATHER_S)
        return record

    @override
    def handle(self, record: logging.LogRecord) -> None:
        if isinstance(record, _Mark):
            record.reached.set()
        else:
            super().handle(record)

    def flush(self, timeout_s: float) -> None:
        mark = _Mark()
        self._waiting.put(mark)
        mark.reached.wait(timeout_s)


class _Mark(logging.LogRecord):
    """A record that is not written: what was logged before it is."""

    def __init__(self) -> None:
        super().__init__("", logging.NOTSET, "", 0, "", None, None)
        self.reached = threading.Event()


def set_up_logs(
    settings: LogSettings,
    *,
    level: int = logging.INFO,
    target: logging.Handler | None = None,
    secrets: Iterable[SecretStr | None] = (),
) -> None:
    """Write what the process logs, from `level` on, to `target` (stderr); for composition roots.

    `secrets`, keys and URLs with passwords, are replaced in every line. At the end of the process
    `logging.shutdown` waits up to 2 s for the thread: Python calls it, but not before `os._exit`.
    """
    target = target or logging.StreamHandler()
    target.setFormatter(formatter(settings, secrets=known_secrets(secrets)))
    root = logging.getLogger()
    root.handlers = [LogLines(target)]
    root.setLevel(level)


def formatter(settings: LogSettings, *, secrets: Iterable[str] = ()) -> logging.Formatter:
    """What makes a line of a record, in the format of the settings."""
    render = _HumanLine() if settings.log_format == "human" else JSONRenderer(serializer=_json)
    return ProcessorFormatter(
        foreign_pre_chain=[_time, add_log_level, add_logger_name, _facts],
        processors=[
            ProcessorFormatter.remove_processors_meta, format_exc_info, _Redact(secrets), render,
        ],
    )  # fmt: skip


def _time(_logger: Any, _method: str, event: EventDict) -> EventDict:
    at = datetime.fromtimestamp(event["_record"].created, UTC)
    time = at.isoformat(timespec="milliseconds").removesuffix("+00:00")
    return {"timestamp": f"{time}Z", **event}


def _facts(_logger: Any, _method: str, event: EventDict) -> EventDict:
    facts = getattr(event["_record"], "facts", None)
    return {**event, **facts} if facts else event


class _Redact:
    """Redacts each text of a line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secrets)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        return {
            name: value if name in _OURS else self._clean(value) for name, value in event.items()
        }

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return redacted(value, self._secrets)
        if value is None or isinstance(value, (int, float)):
            return value
        if isinstance(value, (list, tuple)):
            return [self._clean(each) for each in value]
        if isinstance(value, dict):
            return {name: self._clean(each) for name, each in value.items()}
        return redacted(str(value), self._secrets)


class _HumanLine:
    """Renders `<time> <LEVEL> <logger> <event> <name>=<value> ...`.

    The lines of a traceback follow, indented, so that no message can look like another line.
    """

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> str:
        head = [
            event.pop("timestamp"), event.pop("level").upper(), event.pop("logger"),
            escaped(str(event.pop("event"))),
        ]  # fmt: skip
        tail = [event.pop(name) for name in ("exception", "stack") if event.get(name)]
        facts = [f"{name}={_shown(value)}" for name, value in event.items() if value is not None]
        lines = [escaped(line) for text in tail for line in str(text).splitlines()]
        return "\n    ".join([" ".join([*head, *facts]), *lines])


def _shown(value: Any) -> str:
    """A value in one word, or as JSON."""
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else escaped(json.dumps(value, ensure_ascii=False))
    if isinstance(value, (int, float)):
        return f"{value}"
    return escaped(json_line(value).decode())


def _json(event: EventDict, **_: Any) -> str:
    return escaped_json(json_line(event).decode())
