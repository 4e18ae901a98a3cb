"""What goes wrong, where and when. Pure: the same seed gives the same plan on any machine."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.errands import REAL, Errand, errands

QUIET = 0.8
"""Part of the time after which nothing new breaks: what is left must come to its end."""
WARM_UP_S = 1.0
WORKERS = ("box-1", "box-2", "gpu", "scripted", REAL)
SHIMS = ("shim-1", "shim-2")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks, and for how long."""

    at_s: float
    kind: str
    target: str = ""
    lasts_s: float = 0.0


LINES = (*WORKERS, *SHIMS)
KINDS: dict[str, tuple[Sequence[str], tuple[float, float]]] = {
    "kill -9 a worker, released at once": (WORKERS, (0, 0)),
    "kill -9 a worker, its leases expire": (WORKERS, (0, 0)),
    "SIGTERM a worker": (WORKERS, (0, 0)),
    "SIGSTOP a worker past its lease": (WORKERS, (6, 9)),
    "SIGSTOP a worker for a moment": (WORKERS, (0.5, 2)),
    "kill -9 a shim": (SHIMS, (0, 0)),
    "SIGTERM a shim": (SHIMS, (0, 0)),
    "restart Redis (SIGTERM)": (("redis",), (0.2, 2)),
    "restart Redis (SIGKILL)": (("redis",), (0.2, 2)),
    "SIGSTOP Redis": (("redis",), (1, 4)),
    "SCRIPT FLUSH": (("redis",), (0, 0)),
    "CLIENT KILL everybody": (("redis",), (0, 0)),
    "reset lines to Redis": (LINES, (0, 0)),
    "slow lines to Redis": (LINES, (2, 5)),
    "half-open lines to Redis": (LINES, (1, 4)),
    "half-open lines to Redis past the lease": (WORKERS, (6, 9)),
    "no way to Redis": (LINES, (1, 4)),
    "a queue is paused": (("box.chat", "gpu.chat", "scripted.chat"), (9, 13)),
    "reset lines to a backend": (("box-1", "box-2", "gpu"), (0, 0)),
    "slow lines to a backend": (("box-1", "box-2", "gpu"), (2, 5)),
    "half-open lines to a backend": (("box-1", "box-2", "gpu"), (4, 8)),
    "no way to a backend": (("box-1", "box-2", "gpu"), (1, 3)),
}
"""By kind: what it can hit, and how many seconds it lasts, from and to."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a soak does, decided before it starts."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    errands: tuple[Errand, ...]


def plan(seed: int, seconds: float, *, per_s: float = 2.0, with_real: bool = True) -> Plan:
    """The plan of a seed; faults come in shuffled rounds, so that each kind has its turn."""
    quiet_from_s = seconds * QUIET
    return Plan(
        seed=seed,
        seconds=seconds,
        faults=tuple(_faults(random.Random(f"faults {seed}"), quiet_from_s, with_real=with_real)),
        errands=tuple(
            errands(random.Random(f"errands {seed}"), seconds * 0.9, per_s, with_real=with_real)
        ),
    )


def _faults(dice: random.Random, until_s: float, *, with_real: bool) -> list[Fault]:
    faults: list[Fault] = []
    # A round of all kinds in a minute, or slower where there is more time.
    gap_s = max(2.0, min(4.0, until_s / len(KINDS)))
    at_s = WARM_UP_S
    while at_s < until_s:
        for kind in dice.sample(list(KINDS), len(KINDS)):
            anybody, (least_s, most_s) = KINDS[kind]
            targets = [name for name in anybody if with_real or name != REAL]
            if at_s < until_s:
                lasts_s = round(dice.uniform(least_s, most_s), 2)
                faults.append(Fault(round(at_s, 2), kind, dice.choice(targets), lasts_s))
            at_s += dice.uniform(0.5, 1.5) * gap_s
    return faults
