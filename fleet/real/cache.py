"""The cache of files that are built once on a machine, and its locks."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """`LLM_FLEET_CACHE`, else `llm-fleet` in the user's cache; it may not exist yet."""
    if named := os.environ.get("LLM_FLEET_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-fleet"


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Hold the lock for building `target`; waits for another process, with a line on stderr.

    The kernel releases the lock when the process ends.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"another process is building {target}: waiting\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
