"""Runs soaks: `python -m chaos --minutes 10 --seed 1`; the exit code is 1 for a broken promise."""

import argparse
import asyncio
import logging
import random
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

from chaos.schedule import plan
from chaos.soak import soak
from fleet.real.llama_server import NotBuilt, find


def has_real() -> bool:
    """Whether a real llama-server was built on this machine."""
    try:
        find()
    except NotBuilt:
        return False
    return True


def main() -> int:
    """Run one soak and print what it saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--rate", type=float, default=2.0, help="errands a second")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("relay").setLevel(logging.ERROR)
    # SIGTERM as Ctrl-C, which a shell's background ignores: what was started ends with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with_real = has_real()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    chosen = plan(given.seed, given.minutes * 60, per_s=given.rate, with_real=with_real)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(soak(chosen, folder, with_real=with_real))
    sys.stdout.write(f"{outcome}\nlogs of all processes: {folder}\n")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
