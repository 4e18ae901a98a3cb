"""The fleet's metrics: what Redis has lost does not count twice, and a scrape is bounded.

Subjects: relay/metrics/fleet_metrics.py, relay/metrics/census.py.
"""

import signal
from collections.abc import Iterable

from prometheus_client import Metric
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on

from relay.metrics.census import Census
from relay.metrics.fleet_metrics import FleetMetrics, Rising
from relay.metrics.totals import Field, FleetTotals, Totals
from relay.metrics.totals_reporter import TotalsReporter
from telemetry.process_metrics import ProcessMetrics
from telemetry.settings import MetricsSettings

FIELD: Field = ("jobs_total", "", "chat", QUEUE, "done", "standard")


def fleet_metrics(relay: Relay) -> FleetMetrics:
    return FleetMetrics(FleetTotals(relay.connection), Census(relay.connection))


def value(metrics: Iterable[Metric], name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for metric in metrics
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


def test_a_total_does_not_fall_when_redis_loses_its_newest_writes() -> None:
    rising = Rising()
    seen = [rising.over(Totals(1.0, {FIELD: count}))[FIELD] for count in (5.0, 3.0, 4.0, 6.0)]

    assert seen == [5.0, 5.0, 6.0, 8.0]


def test_totals_that_begin_anew_are_taken_as_they_are() -> None:
    rising = Rising()
    rising.over(Totals(1.0, {FIELD: 5.0}))

    assert rising.over(Totals(2.0, {FIELD: 1.0})) == {FIELD: 1.0}
    assert rising.over(Totals(2.0, {})) == {FIELD: 1.0}


async def test_counts_of_a_process_are_there_when_it_has_gone(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(2):
            process = ProcessMetrics("worker", MetricsSettings())
            process.on_ended(QUEUE, "standard", "t", "done")
            reporter = TotalsReporter(process.series, FleetTotals(relay.connection, 10))
            await reporter.report()
            await reporter.finish()
        metrics = await fleet_metrics(relay).read()

    assert value(metrics, "llmfleet_jobs_total", outcome="done") == 2.0
    assert value(metrics, "llmfleet_tenant_jobs_total", tenant="t") == 2.0


async def test_a_report_without_a_reply_is_added_once(own_redis: RedisServer) -> None:
    fast = {"command_timeout_s": 0.2}
    async with relay_on(own_redis.url, **fast) as relay:
        process = ProcessMetrics("worker", MetricsSettings())
        reporter = TotalsReporter(process.series, FleetTotals(relay.connection, 10))
        await relay.connection.ping()
        assert own_redis.process is not None
        own_redis.process.send_signal(signal.SIGSTOP)
        process.on_ended(QUEUE, "standard", "t", "done")
        await reporter.report()
        own_redis.process.send_signal(signal.SIGCONT)
        process.on_ended(QUEUE, "standard", "t", "done")
        await reporter.report()
        metrics = await fleet_metrics(relay).read()

    assert value(metrics, "llmfleet_jobs_total", outcome="done") == 2.0


async def commands_of_a_scrape(relay: Relay) -> int:
    async def count() -> int:
        stats = await relay.connection.command("INFO", "commandstats")
        return sum(int(each["calls"]) for each in stats.values())

    await fleet_metrics(relay).read()  # loads the scripts
    before = await count()
    await fleet_metrics(relay).read()
    return await count() - before


async def test_a_scrape_costs_the_same_whatever_waits(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.queue.enqueue(chat(), queue=QUEUE)
        alone = await commands_of_a_scrape(relay)
        for _ in range(300):
            await relay.queue.enqueue(chat(priority="batch"), queue=QUEUE)
        beside = await commands_of_a_scrape(relay)
        metrics = await fleet_metrics(relay).read()

    assert beside == alone < 40
    assert value(metrics, "llmfleet_waiting_jobs", queue=QUEUE) == 301


async def test_scrapes_within_a_second_share_a_read(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        metrics = fleet_metrics(relay)
        first = await metrics.read()
        await relay.queue.enqueue(chat(), queue=QUEUE)

        assert await metrics.read() is first


async def test_without_redis_a_scrape_says_so(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url, command_timeout_s=0.2) as relay:
        own_redis.stop()
        metrics = await fleet_metrics(relay).read()

    assert value(metrics, "llmfleet_redis_up") == 0.0


async def test_what_alerts_count_is_there_before_it_has_happened(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        metrics = await fleet_metrics(relay).read()

    dead = {"kind": "chat", "queue": QUEUE, "outcome": "dead", "class": "batch"}
    assert value(metrics, "llmfleet_jobs_total", **dead) == 0
    assert value(metrics, "llmfleet_hand_overs_total", reason="worker_died") == 0
    assert value(metrics, "llmfleet_hand_overs_total", reason="lease_expired") == 0
