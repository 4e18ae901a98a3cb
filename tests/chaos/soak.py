"""One soak from its first process to its verdict."""

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from chaos.callers import Caller, Tale
from chaos.cast import LEASE_S, Cast, cast
from chaos.faults import DEEDS
from chaos.ledger import unbalanced
from chaos.leftovers import all_jobs, not_closed, settled, story_of
from chaos.receivers import untold
from chaos.report import table
from chaos.schedule import Fault, Plan
from chaos.verdict import Broken, judge, judge_pauses

_log = logging.getLogger(__name__)

_ENDS_WITHIN_S = 150.0
"""After the last errand: leases, retries and frozen workers have had their time by then."""
_CLOSED_WITHIN_S = 15.0
"""A worker that is frozen for nine seconds cannot close a socket sooner."""
_DEFECT = re.compile(
    r"met a defect of ours|lifespan failed|raised unexpected|was never retrieved"
    # One that starts while Redis is away ends, and its supervisor starts it again.
    r"|Unrecoverable error: (?!RelayUnavailable)"
)


@dataclass
class Outcome:
    """What a soak found."""

    plan: Plan
    broken: list[Broken] = field(default_factory=list)
    table: str = ""
    stories: dict[str, str] = field(default_factory=dict)
    """Logs of the jobs that broke a promise."""

    def __str__(self) -> str:
        """For the terminal."""
        parts = [self.table, ""]
        for promise, job, detail in self.broken:
            parts.append(f"BROKEN: {promise}: {job} {detail}")
        for job, story in list(self.stories.items())[:5]:
            parts += ["", f"the log of {job}:", story]
        seed, minutes = self.plan.seed, self.plan.seconds / 60
        verdict = f"{len(self.broken)} promises broken" if self.broken else "all promises kept"
        parts.append(f"\nseed {seed}: {verdict}; again: make chaos MINUTES={minutes:g} SEED={seed}")
        return "\n".join(parts)


async def soak(plan: Plan, folder: Path, *, with_real: bool) -> Outcome:
    """Run the plan; raises nothing for a broken promise: the outcome tells."""
    outcome = Outcome(plan)
    async with cast(folder, with_real=with_real) as here:
        tales = await _played(plan, here, outcome)
        here.heal()
        await here.ready()
        left = await settled(here)
        jobs = await all_jobs(here)
        outcome.broken += [*judge(jobs, tales), *left, *_defects(here)]
        outcome.broken += judge_pauses(jobs.values(), here.pauses)
        outcome.broken += await unbalanced(here, jobs)
        outcome.broken += await untold(here, jobs)
        outcome.broken += not_closed(here, tales, _CLOSED_WITHIN_S)
        outcome.table = table(here, plan.faults, jobs, tales)
        for broken in outcome.broken:
            if broken.job and len(outcome.stories) < 20:
                outcome.stories[broken.job] = await story_of(here, broken.job)
    return outcome


async def _played(plan: Plan, here: Cast, outcome: Outcome) -> list[Tale]:
    """Callers and faults side by side, until every caller has heard its last word."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        known: dict[int, str] = {}
        callers = [Caller(errand, here.urls, http, known) for errand in plan.errands]
        tasks = [
            asyncio.create_task(_at(began_at + caller.tale.errand.at_s, caller.run()))
            for caller in callers
        ]
        faults = [
            asyncio.create_task(_at(began_at + fault.at_s, _break(here, fault)))
            for fault in plan.faults
        ]
        progress = asyncio.create_task(_tell(plan, tasks, faults))
        bound_s = plan.seconds + _ENDS_WITHIN_S
        _, late = await asyncio.wait([*tasks, *faults], timeout=bound_s)
        progress.cancel()
        for task in late:
            task.cancel()
        ends = await asyncio.gather(*tasks, *faults, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
    for caller, task in zip(callers, tasks, strict=True):
        if task in late:
            tale = caller.tale
            detail = f"{tale.errand.what}: not over {_ENDS_WITHIN_S:g} s after the last errand"
            outcome.broken.append(Broken("every job ends", tale.job, detail))
    return [caller.tale for caller in callers]


async def _at(when: float, what: object) -> object:
    try:
        await asyncio.sleep(when - asyncio.get_running_loop().time())
        return await what  # type: ignore[misc]
    finally:
        what.close()  # type: ignore[attr-defined]


async def _break(here: Cast, fault: Fault) -> None:
    _log.info("%6.1f s  %s  %s  %g s", fault.at_s, fault.kind, fault.target, fault.lasts_s)
    await DEEDS[fault.kind](here, fault)


async def _tell(
    plan: Plan, tasks: Sequence[asyncio.Task[object]], faults: Sequence[asyncio.Task[object]]
) -> None:
    while True:
        await asyncio.sleep(10)
        over, broke = (sum(task.done() for task in some) for some in (tasks, faults))
        _log.info("%d of %d errands over, %d faults", over, len(plan.errands), broke)


def _defects(here: Cast) -> list[Broken]:
    """What no process may write into its log, whatever is done to it."""
    found = []
    for player in here.players.values():
        text = player.log.read_text(errors="replace")
        for match in list(_DEFECT.finditer(text))[:3]:
            words = text[max(0, match.start() - 300) : match.end() + 1500]
            found.append(Broken("no process meets a defect", "", f"{player.name}: {words}"))
    return found


__all__ = ["LEASE_S", "Outcome", "soak"]
