"""Where things are kept that are made once a machine, and how two makers keep apart."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """`LLM_FLEET_CACHE`, else `llm-fleet` in the user's cache; it need not exist yet."""
    if told := os.environ.get("LLM_FLEET_CACHE"):
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-fleet"


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Be the only one who makes `target`; waits for another maker, and says so on stderr.

    The lock is the kernel's: it goes with its process, however that ends.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"somebody else makes {target}: waiting\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
