"""Was every end told to a receiver that often fails: at least once, with one id, in order?"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from support.receiver import Received

from chaos.cast import Cast
from chaos.verdict import Broken, Job


async def untold(cast: Cast, jobs: dict[str, Job]) -> list[Broken]:
    """Ends that the receiver was not told of as it should be."""
    ended_at: dict[str, float] = {}
    for job in jobs.values():
        record = await cast.relay.records.get(job.id)
        if record.webhook is not None and record.ended_at is not None:
            ended_at[job.id] = record.ended_at
    return list(judge_told(ended_at, cast.hook.received))


def judge_told(ended_at: Mapping[str, float], received: Sequence[Received]) -> Iterator[Broken]:
    """What is wrong with what came, by when each job ended."""
    ids: dict[str, set[str]] = defaultdict(set)
    for each in received:
        ids[each.subject].add(each.id)
    for job in ended_at:
        if len(ids[job]) != 1:
            yield Broken("every end is told, with one id", job, f"ids {sorted(ids[job])}")
    for job in ids.keys() - ended_at.keys():
        yield Broken("only ends are told", job, "it has no record, or has not ended")
    # Those that ended in one script have the same time.
    order = [job for job in dict.fromkeys(each.subject for each in received) if job in ended_at]
    for before, after in pairwise(order):
        if ended_at[before] > ended_at[after]:
            late_s = ended_at[before] - ended_at[after]
            detail = f"after {before}, which ended {late_s:.6f} s later"
            yield Broken("ends are told in their order", after, detail)
