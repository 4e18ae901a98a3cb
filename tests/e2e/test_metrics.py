"""Metrics of a running fleet: counted over all processes, kept after a worker, scraped for real."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from support.batches import begun, echo, ended
from support.processes import WorkerProcess, worker
from support.prometheus import prometheus_folder
from support.redis_server import RedisServer, free_port
from support.relay import relay_on
from support.shape import ROOT
from support.shim import serving
from yaml import safe_dump

WITHIN_S = 30.0
MONITORING = ROOT / "compose" / "monitoring"
STORY = {
    "model": "scripted-story",
    "messages": [{"role": "user", "content": "x"}],
}


def value(url: str, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    found = text_string_to_metric_families(httpx.get(url).text)
    return sum(
        sample.value
        for metric in found
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def until(ask: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WITHIN_S
    while not ask():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)


def chats(shim: str, count: int) -> None:
    for _ in range(count):
        httpx.post(f"{shim}/v1/chat/completions", json=STORY).raise_for_status()


async def ready(redis_url: str, *workers: WorkerProcess) -> None:
    async with relay_on(redis_url) as relay:
        for each in workers:
            await each.ready(relay)


async def test_counts_outlive_their_worker(redis_url: str, tmp_path: Path) -> None:
    def done(shim: str) -> float:
        return value(f"{shim}/metrics", "llmfleet_jobs_total", outcome="done")

    with serving(redis_url) as shim, serving(redis_url) as other_shim:
        with worker(redis_url, tmp_path) as first:
            await ready(redis_url, first)
            chats(shim, 3)
            until(lambda: done(shim) == 3)
        with worker(redis_url, tmp_path) as second:
            await ready(redis_url, second)
            chats(shim, 2)
            until(lambda: done(shim) == 5)
            until(lambda: done(other_shim) == 5)
            running = httpx.get(f"{shim}/metrics?only=fleet").text

    assert 'llmfleet_tokens_total{direction="out",model="scripted-story"' in running
    assert 'llmfleet_backend_up{backend="scripted"} 1.0' in running


@contextmanager
def prometheus(folder: Path, shim: str) -> Iterator[str]:
    """A server that scrapes a shim, and the workers that the shim knows, each second."""
    host = shim.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "rules.yml")],
        "scrape_configs": [
            {"job_name": "llmfleet-shim", "static_configs": [{"targets": [host]}]},
            {
                "job_name": "llmfleet-workers",
                "http_sd_configs": [{"url": f"{shim}/metrics/targets", "refresh_interval": "1s"}],
            },
        ],
    }
    (folder / "prometheus.yml").write_text(safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    words = [
        str(prometheus_folder() / "prometheus"), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(20)


def answer(server: str, query: str) -> dict[str, float]:
    """The sums of a query's values by the job that was scraped."""
    try:
        reply = httpx.get(f"{server}/api/v1/query", params={"query": query})
    except httpx.TransportError:
        return {}
    if reply.status_code != 200:
        return {}
    found = json.loads(reply.text)["data"]["result"]
    sums: dict[str, float] = {}
    for each in found:  # series that begin with 0 are among them
        job = each["metric"].get("job", "")
        sums[job] = sums.get(job, 0.0) + float(each["value"][1])
    return sums


async def test_prometheus_scrapes_a_fleet(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = {"FLEET_METRICS_PORT": "0", "FLEET_REPORT_S": "1"}
    with (
        serving(own_redis.url) as shim,
        worker(own_redis.url, tmp_path, **settings) as process,
        prometheus(tmp_path, shim) as server,
    ):
        await ready(own_redis.url, process)
        chats(shim, 4)
        both = {"llmfleet-shim": 1.0, "llmfleet-workers": 1.0}
        until(lambda: answer(server, "up") == both)
        until(lambda: answer(server, "llmfleet_process_jobs_total") == {"llmfleet-workers": 4.0})
        until(lambda: answer(server, "llmfleet_jobs_total") == {"llmfleet-shim": 4.0})
        alerts = httpx.get(f"{server}/api/v1/alerts").json()["data"]["alerts"]
        rules = httpx.get(f"{server}/api/v1/rules").json()["data"]["groups"]

    assert alerts == []
    assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok", "unknown"}


MAY_BE_EMPTY = {
    "llmfleet_delayed_jobs", "llmfleet_enqueues_refused_total", "llmfleet_endpoint_circuit_open",
    "llmfleet_hand_overs_total", "llmfleet_leases_lost_total", "llmfleet_pulls",
}  # fmt: skip
"""Metrics of what does not happen in a fleet that works."""


def empty_panels(server: str) -> list[str]:
    """Queries of the dashboards that find nothing, but for what may be so."""
    found = []
    for path in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                query = re.sub(r"\$\w+", ".*", target["expr"])
                if any(name in query for name in MAY_BE_EMPTY):
                    continue
                reply = httpx.get(f"{server}/api/v1/query", params={"query": query})
                if not json.loads(reply.text)["data"]["result"]:
                    found.append(f"{path.stem}: {panel['title']}: {query}")
    return found


def all_kinds(shim: str) -> None:
    """Some of everything that dashboards show: answers, vectors, a failure, a batch."""
    chats(shim, 3)
    failing = {
        **STORY,
        "model": "scripted-story:fail=body",
        "max_attempts": 1,
        "backend": "scripted",
    }
    httpx.post(f"{shim}/api/v1/jobs/chat", json=failing).raise_for_status()
    embed = {"model": "scripted-embed", "input": ["one"]}
    httpx.post(f"{shim}/v1/embeddings", json=embed).raise_for_status()
    with OpenAI(base_url=f"{shim}/v1", api_key="unused") as ask:
        ended(ask, begun(ask, [echo(1), echo(2)]))


async def test_every_panel_of_the_dashboards_shows_something_of_a_fleet_at_work(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    settings = {"FLEET_METRICS_PORT": "0", "FLEET_REPORT_S": "1"}
    with (
        serving(own_redis.url) as shim,
        worker(own_redis.url, tmp_path, **settings) as process,
        prometheus(tmp_path, shim) as server,
    ):
        await ready(own_redis.url, process)
        all_kinds(shim)
        until(lambda: bool(answer(server, 'llmfleet_jobs_total{outcome="dead"}')))
        all_kinds(shim)
        slow = {**STORY, "model": "scripted-story:chunks=400,rate=10", "backend": "scripted"}
        for _ in range(2):
            httpx.post(f"{shim}/api/v1/jobs/chat", json=slow).raise_for_status()
        try:
            until(lambda: empty_panels(server) == [])
        except AssertionError:
            assert empty_panels(server) == []
