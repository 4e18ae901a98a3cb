"""Warnings whose cause goes on: the first is written at once, then one a minute, with a count.

A key in Redis that another program has damaged fails every pass of a loop, and every ticket: the
log is to say so, and that it goes on, but not each time.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

_EVERY_S: Final = 60.0
_MOST: Final = 200
"""Different warnings that are told apart; further ones count as one."""


@dataclass(slots=True)
class _Written:
    """When a warning was written, and how often it was left out since."""

    at: float
    left_out: int = 0


class RepeatedWarnings:
    """Those of one logger; a process writes at most `_MOST` and one more of them a minute."""

    def __init__(self, log: logging.Logger) -> None:
        """Nothing is written yet."""
        self._log = log
        self._written: dict[str, _Written] = {}

    def warn(
        self,
        message: str,
        *args: object,
        about: str = "",
        exc_info: BaseException | None = None,
    ) -> None:
        """Write a warning, unless one `about` the same (its own text) was in the last minute."""
        self._write(logging.WARNING, message, args, about, exc_info)

    def error(self, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """The same for a defect of ours, which is told apart by its own text, too."""
        about = f"{message % args}: {exc_info!r}"
        self._write(logging.ERROR, message, args, about, exc_info)

    def _write(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        about: str,
        exc_info: BaseException | None,
    ) -> None:
        now = time.monotonic()
        about = self._place_of(about or message % args, now)
        before = self._written.get(about)
        if before is not None and now - before.at < _EVERY_S:
            before.left_out += 1
            return
        self._written[about] = _Written(now)
        if before is not None and before.left_out:
            message, args = f"{message} (and %d times more)", (*args, before.left_out)
        self._log.log(level, message, *args, exc_info=exc_info, stacklevel=3)

    def _place_of(self, about: str, now: float) -> str:
        """Where a warning is counted: by what it is about, as long as there is room."""
        if about in self._written or len(self._written) < _MOST:
            return about
        self._written = {
            each: written
            for each, written in self._written.items()
            if now - written.at < _EVERY_S or not each
        }
        return about if len(self._written) < _MOST else ""
