"""Does the ledger hold every job once, and is nothing reserved for what is over?"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from chaos.cast import Cast
from chaos.verdict import Broken, Job
from contract import redis_keys
from contract.cost import prompt_estimate
from contract.usage import UsageCounts
from relay.usage.job_meter import JobMeter
from relay.usage.ledger import Ledger, UsageQuery
from relay.usage.settlement import day_number

Group = tuple[str, ...]


async def unbalanced(cast: Cast, jobs: dict[str, Job]) -> list[Broken]:
    """What the ledger has that no job used, what it lacks, and what is still reserved."""
    connection = cast.relay.connection
    today = datetime.fromtimestamp(connection.now(), UTC)
    days = (today - timedelta(days=1)).date(), today.date()
    ledger = await Ledger(connection).read(UsageQuery(*days, ("kind", "model")))
    broken = list(judge_ledger(ledger, await _used(cast, jobs)))
    tenants = await Ledger(connection).read(UsageQuery(*days, ("tenant",)))
    for (tenant,), counts in tenants.items():
        left = await connection.command("HKEYS", redis_keys.reserved(tenant))
        if left:
            broken.append(Broken("nothing stays reserved", left[0].decode(), f"{len(left)} jobs"))
        tokens = counts.prompt_tokens + counts.completion_tokens
        limited = await _limited(cast, tenant, day_number(today))
        if limited != tokens:
            detail = f"{tenant}: {limited} tokens count against its limit, {tokens} were used"
            broken.append(Broken("limits count what was used", "", detail))
    return broken


def judge_ledger(
    ledger: Mapping[Group, UsageCounts], used: Mapping[Group, UsageCounts]
) -> Iterator[Broken]:
    """What the ledger lacks, and what it has that no job used."""
    for group in sorted(ledger.keys() | used.keys()):
        told, counts = ledger.get(group), used.get(group)
        if not _alike(told, counts):
            detail = f"{group}: {told}, by its log {counts}"
            yield Broken("the ledger equals what was streamed", "", detail)


async def _used(cast: Cast, jobs: dict[str, Job]) -> dict[Group, UsageCounts]:
    """What every job that began used by its log, by kind and model."""
    found: dict[Group, UsageCounts] = {}
    for job in jobs.values():
        meter = JobMeter()
        for frame in job.frames:
            meter.add_frame(frame)
        if not meter.attempts:
            continue
        request = await cast.relay.records.request(job.id)
        group = request.kind, getattr(request, "model", None) or ""
        counts = meter.counts(lambda request=request: prompt_estimate(request))
        counts = counts._replace(
            requests=1,
            failed=int(job.status == "failed"),
            cancelled=int(job.status == "cancelled"),
        )
        found[group] = found.get(group, UsageCounts()).plus(counts)
    return found


def _alike(told: UsageCounts | None, counts: UsageCounts | None) -> bool:
    """Whether both say the same but for time, which workers measure and logs tell by events."""
    if told is None or counts is None:
        return False
    return told._replace(backend_ms=0, cost_nano=0) == counts._replace(backend_ms=0, cost_nano=0)


async def _limited(cast: Cast, tenant: str, day: int) -> int:
    """Tokens of the last two days that count against a limit."""
    fields = await cast.relay.connection.command("HGETALL", redis_keys.spending(tenant))
    amounts = [text.split() for name, text in fields.items() if name.startswith(b"d")]
    return sum(int(tokens) for number, tokens, _ in amounts if int(number) >= day - 1)
