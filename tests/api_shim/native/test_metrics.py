"""The exposition: names, types, labels; who may read it; where workers serve theirs.

Subjects: api_shim/native/metrics.py, telemetry/process_metrics.py, telemetry/families.py.
"""

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from support.keys import bearer, keyed
from support.prometheus import promtool
from support.redis_server import RedisServer
from support.shim import CHAT, problem, serving, stage

from relay.metrics.totals import FleetTotals
from relay.metrics.totals_reporter import TotalsReporter
from telemetry.families import FAMILIES
from telemetry.process_metrics import ProcessMetrics
from telemetry.settings import MetricsSettings


def metrics_in(text: str) -> dict[str, Metric]:
    return {metric.name: metric for metric in text_string_to_metric_families(text)}


async def scraped(shim: str, redis_url: str) -> str:
    """The exposition of a fleet in which something of everything has happened."""
    async with stage(shim, redis_url) as at:
        await at.announce()
        accepted = (await at.http.post("/api/v1/jobs/chat", json=CHAT)).json()
        await at.http.delete(f"/api/v1/jobs/{accepted['id']}")
        await at.http.get("/no/such/path/5c3f")
        worker = ProcessMetrics("worker", MetricsSettings())
        for family in FAMILIES:
            if family.scope == "both" and family.type == "counter":
                worker.series.count(family.name, *family.labels)
            elif family.scope == "both":
                worker.series.bins(family.name, *family.labels).observe(1.0)
        await TotalsReporter(worker.series, FleetTotals(at.relay.connection, 9)).report()
        answer = await at.http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text


async def test_every_name_help_and_label_keeps_the_rules(shim: str, redis_url: str) -> None:
    found = metrics_in(await scraped(shim, redis_url))
    of_table = {name.removesuffix("_total") for each in FAMILIES for name in each.names}
    ours = {name: each for name, each in found.items() if name.startswith("llmfleet_")}

    assert set(ours) <= of_table
    for name, metric in ours.items():
        assert metric.documentation.endswith("."), name
        for sample in metric.samples:
            assert all(value and value != "None" for value in sample.labels.values()), sample
            assert "5c3f" not in str(sample.labels)
            assert (metric.type == "counter") is sample.name.endswith("_total"), sample
    assert {name for name in of_table if not name.startswith("llmfleet_process_")} <= set(ours)


async def test_promtool_finds_nothing(shim: str, redis_url: str) -> None:
    assert promtool("check", "metrics", given=await scraped(shim, redis_url)) == ""


async def test_a_shim_serves_the_fleet_or_itself_alone(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        fleet = metrics_in((await at.http.get("/metrics?only=fleet")).text)
        process = metrics_in((await at.http.get("/metrics?only=process")).text)
        problem(await at.http.get("/metrics?only=x"), 422, "invalid_request")

    assert not [name for name in fleet if name.startswith("llmfleet_process_")]
    assert "llmfleet_redis_up" in fleet.keys() - process.keys()
    assert {"llmfleet_process_build_info", "process_cpu_seconds"} <= set(process)


async def test_workers_that_serve_metrics_are_listed_for_prometheus(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        report = await at.announce("box", name="w1")
        url = {"metrics_url": "http://10.0.0.5:9100/metrics"}
        await at.relay.roster.report(report.model_copy(update=url))
        await at.announce("other")
        targets = (await at.http.get("/metrics/targets")).json()

    labels = {"worker": "w1", "backend": "box"}
    assert targets == [{"targets": ["10.0.0.5:9100"], "labels": labels}]


@pytest.mark.parametrize("path", ["/metrics", "/metrics/targets"])
async def test_an_admin_and_the_metrics_key_may_read(path: str, own_redis: RedisServer) -> None:
    with keyed(own_redis.url, metrics_key="scrape-me") as fleet:
        tenant = fleet.issue("t")["key"]
        codes = [
            httpx.get(fleet.url + path, headers=bearer(key)).status_code
            for key in (fleet.key, "scrape-me", tenant, "scrape-mf")
        ]
        elsewhere = httpx.get(f"{fleet.url}/api/v1/workers", headers=bearer("scrape-me"))

    assert codes == [200, 200, 403, 401]
    assert elsewhere.status_code == 401


async def test_without_keys_only_this_machine_may_read(redis_url: str) -> None:
    with serving(redis_url, metrics_key="scrape-me") as shim:
        proxied = {"x-forwarded-for": "203.0.113.9"}
        refused = httpx.get(f"{shim}/metrics", headers=proxied)
        allowed = httpx.get(f"{shim}/metrics", headers={**proxied, **bearer("scrape-me")})

    problem(refused, 403, "not_local")
    assert allowed.status_code == 200
