"""Sends made-up requests to a fleet: `python -m fuzz [--requests N] [--minutes N] [--seed N]`.

Every operation, valid and invalid requests, keys of an admin and two tenants. A fault is an answer
that is undocumented or an internal error, or shows one tenant what is another's; the exit code is
1 then. `--seed` with `--round` goes on where another run has ended.
"""

import argparse
import random
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TextIO

from fuzz.judge import operations
from fuzz.run import Fault, Tally, fuzz
from fuzz.tenants import stage
from fuzz.valid_requests import NEVER_SERVED

_EVERY_S = 5.0


class Progress:
    """Ends a run in time, and says how far it is."""

    def __init__(self, requests: int, minutes: float, seed: int, out: TextIO) -> None:
        self._requests, self._seed, self._out = requests, seed, out
        self._begun_at = self._told_at = time.monotonic()
        self._ends_at = self._begun_at + minutes * 60
        self._faults = 0
        self.round = 0

    def __call__(self, number: int, tally: Tally) -> bool:
        """Tell new faults at once, and the rest every few seconds."""
        now = time.monotonic()
        self.round = number
        for fault in list(tally.faults.values())[self._faults :]:
            self._out.write(f"{told(fault)}\n")
        self._faults = len(tally.faults)
        if now - self._told_at > _EVERY_S:
            self._told_at = now
            self._out.write(f"{self.line(tally)}\n")
            self._out.flush()
        return tally.requests < self._requests and now < self._ends_at

    def line(self, tally: Tally) -> str:
        """How far it is."""
        rate = tally.requests / max(time.monotonic() - self._begun_at, 0.001)
        return (
            f"{tally.requests:,} of {self._requests:,} requests, {rate:.0f}/s, "
            f"sorts of faults: {len(tally.faults)}, --seed {self._seed} --round {self.round}"
        )


def told(fault: Fault) -> str:
    """A fault as text."""
    return (
        f"FAULT in round {fault.number}: {fault.operation}, asked by {fault.caller}: "
        f"{fault.status}\n{fault.words[:1500]}\n{fault.command}\n"
    )


def main() -> int:
    """Fuzz, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="how many, at most")
    parser.add_argument("--minutes", type=float, default=60, help="how long, at most")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--round", type=int, default=0, help="the first one")
    given = parser.parse_args()
    tally, found = Tally(), operations()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, stage(Path(folder)) as at:
        watch = Progress(given.requests, given.minutes, given.seed, sys.stderr)
        rounds = count(given.round)
        fuzz(at, found, of=given.seed, rounds=rounds, tally=tally, watch=watch)
    statuses = ", ".join(f"{status} x {n:,}" for status, n in sorted(tally.statuses.items()))
    unserved = found.keys() - tally.served
    lines = [f"{name}: {NEVER_SERVED.get(name, 'no 2xx')}\n" for name in sorted(unserved)]
    sys.stdout.write(f"{watch.line(tally)}\nstatuses: {statuses}\nnever served:\n")
    sys.stdout.writelines(lines)
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
