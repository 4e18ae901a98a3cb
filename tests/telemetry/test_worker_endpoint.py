"""The endpoint of a worker's metrics: off, on loopback, with a key."""

import socket

import httpx
import pytest
from pydantic import SecretStr

from contract.errors import InvalidSetting
from telemetry.process_metrics import ProcessMetrics
from telemetry.settings import MetricsSettings, demand_key
from telemetry.worker_endpoint import serving
from workers.settings import WorkerSettings

METRICS = ProcessMetrics("worker", MetricsSettings())


async def get(url: str, key: str | None = None) -> httpx.Response:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"} if key else {}) as http:
        return await http.get(url)


async def test_without_a_port_nothing_is_served() -> None:
    async with serving(METRICS, WorkerSettings()) as url:
        assert url is None


async def test_it_serves_the_process_on_a_free_port() -> None:
    async with serving(METRICS, WorkerSettings(metrics_port=0)) as url:
        assert url is not None
        answer = await get(url)

    assert 'llmfleet_process_build_info{process="worker"' in answer.text


async def test_a_key_is_asked_for_where_there_is_one() -> None:
    settings = WorkerSettings(metrics_port=0, metrics_key=SecretStr("scrape-me"))
    async with serving(METRICS, settings) as url:
        assert url is not None
        answers = [await get(url, key) for key in (None, "scrape-mf", "scrape-me")]

    assert [answer.status_code for answer in answers] == [401, 401, 200]


def test_other_machines_need_a_key() -> None:
    open_to_all = WorkerSettings(metrics_port=0, metrics_address="0.0.0.0")
    with pytest.raises(InvalidSetting, match=r"METRICS_ADDRESS = 0\.0\.0\.0: set FLEET_"):
        demand_key(open_to_all)
    demand_key(open_to_all.model_copy(update={"metrics_key": SecretStr("k")}))
    demand_key(open_to_all.model_copy(update={"metrics_port": None}))
    demand_key(open_to_all.model_copy(update={"metrics_address": "::1"}))


async def test_a_port_in_use_stops_no_jobs(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with serving(METRICS, WorkerSettings(metrics_port=port)) as url:
            assert url is None

    assert f"FLEET_METRICS_PORT = {port}" in caplog.text
