"""Floods a shim in every known way: `python -m flood [CASE...]`; the exit code is 1 for a fault.

Each case has a shim and a Redis of its own, on loopback, for a few minutes in all.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

import uvloop
from support.small_disk import can_mount

from flood import bodies, followers, heads, kept, logprobs, pictures, room, served, uploads
from flood.scene import Case, Row, Scene, has_processes, measure, scene, table

CASES: list[Case] = [
    *heads.CASES,
    *bodies.CASES,
    *pictures.CASES,
    *uploads.CASES,
    *served.CASES,
    *followers.CASES,
    *room.CASES,
    *kept.CASES,
    *logprobs.CASES,
]


def run(case: Case, at: Scene) -> Row:
    """One case on a shim."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(case, at))


def main() -> int:
    """Run the cases whose names contain one of the words, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m flood", description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of names of cases; all without any")
    given = parser.parse_args()
    if not has_processes():
        sys.stderr.write("NOT RUN: this system does not show the memory of a process\n")
        return 1
    # Each shim begins as a program does: forks share the memory of their parent.
    os.environ["FLEET_TEST_FORKS"] = "0"
    rows = []
    with tempfile.TemporaryDirectory(prefix="flood-") as folder:
        for number, case in enumerate(CASES):
            if case.disk_mib and not can_mount():
                sys.stderr.write(f"NOT RUN: {case.name}: it takes root and `unshare --mount`\n")
            elif not given.words or any(word in case.name for word in given.words):
                sys.stderr.write(f"{case.name}\n")
                with scene(case, Path(folder) / str(number)) as at:
                    rows.append(run(case, at))
    sys.stdout.write(table(rows) + "\n")
    return 1 if any(row.faults() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
