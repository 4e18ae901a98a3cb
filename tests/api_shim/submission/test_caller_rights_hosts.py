"""The roster for tenants: names, capabilities and health, and not where anything runs."""

from collections.abc import Iterator

import httpx
import pytest
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.relay import relay_on

from contract.roster import BackendReport, EndpointReport, ModelReport, QueueReport, WorkerReport

SECRETS = ("gpu-1.internal", "10.9.8", "4711", "9464")
REPORT = WorkerReport(
    v=1,
    name="box-1",
    host="gpu-1.internal",
    pid=4711,
    started_at=0,
    metrics_url="http://10.9.8.1:9464/metrics",
    backends=(
        BackendReport(
            name="box",
            type="ollama",
            endpoint="http://10.9.8.7:1",
            endpoints=(
                EndpointReport(address="http://10.9.8.7:1", label="box/1", healthy=True),
                EndpointReport(
                    address="http://gpu-1.internal:2",
                    label="box/2",
                    healthy=False,
                    error="http://gpu-1.internal:2 cannot be reached: ('10.9.8.3', 2) refused",
                ),
            ),
            healthy=True,
            capabilities=("chat",),
            models=(ModelReport(name="m"),),
        ),
    ),
    queues=(QueueReport(name="box.chat", kind="chat", slots=1, in_flight=0),),
)
PATHS = ("workers", "backends", "models", "queues", "overview")


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    with keyed(own_redis.url) as shim:
        yield shim


async def told(fleet: Keyed, redis: RedisServer, caller: httpx.AsyncClient) -> dict[str, str]:
    """What each path answers to a caller, as text."""
    async with relay_on(redis.url) as relay, caller as http:
        await relay.roster.report(REPORT)
        answers = {path: await http.get(f"/api/v1/{path}") for path in PATHS}
    assert {answer.status_code for answer in answers.values()} == {200}
    return {path: answer.text for path, answer in answers.items()}


async def test_a_tenant_learns_no_host_process_or_address(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    found = await told(fleet, own_redis, fleet.caller("a"))
    everything = "".join(found.values())

    assert [secret for secret in SECRETS if secret in everything] == []
    assert "box cannot be reached" in found["backends"]
    assert '"endpoints":["box/1","box/2"],"endpoints_down":["box/2"]' in found["backends"]
    assert "box is served without box/2" in found["overview"]


async def test_an_admin_sees_all_of_it(fleet: Keyed, own_redis: RedisServer) -> None:
    found = await told(fleet, own_redis, fleet.admin)

    assert [secret for secret in SECRETS if secret not in found["workers"]] == []
    assert "http://gpu-1.internal:2 cannot be reached" in found["backends"]
    assert "box is served without http://gpu-1.internal:2" in found["overview"]
