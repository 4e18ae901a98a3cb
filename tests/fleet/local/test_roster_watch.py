"""What `fleet up` says while it runs: each change of a backend once, and nothing else."""

from support.relay import relay_on

from contract.roster import BackendReport, EndpointReport, WorkerReport
from fleet.local.roster_watch import RosterWatch


def report(*, error: str | None = None, circuit: float | None = None) -> WorkerReport:
    endpoint = EndpointReport(
        address="http://box", healthy=error is None, error=error, circuit_open_until=circuit
    )
    backend = BackendReport(
        name="box",
        type="ollama",
        endpoint="http://box",
        endpoints=(endpoint,),
        healthy=error is None,
        error=error,
    )
    return WorkerReport(
        v=1, name="box-1", host="h", pid=1, started_at=0, backends=(backend,), queues=()
    )


async def test_each_change_is_said_once(redis_url: str) -> None:
    said: list[str] = []
    async with relay_on(redis_url) as relay:
        watch = RosterWatch(relay.roster, said.append)
        await relay.roster.report(report())
        await watch.wait_checked({"box"})
        for each in (
            report(),
            report(error="connection refused"),
            report(error="connection refused"),
            report(circuit=1e12),
            report(),
        ):
            await relay.roster.report(each)
            await watch.refresh()
        await relay.roster.leave("box-1")
        await watch.refresh()
        await watch.refresh()

    assert said == [
        "backend box is unhealthy: connection refused",
        "backend box is paused after repeated failures: no reason given",
        "backend box works",
        "backend box is gone: no live worker serves it",
    ]


async def test_a_backend_that_comes_later_is_said(redis_url: str) -> None:
    said: list[str] = []
    async with relay_on(redis_url) as relay:
        watch = RosterWatch(relay.roster, said.append)
        await watch.wait_checked(set())
        await relay.roster.report(report())
        await watch.refresh()

    assert said == ["backend box works"]
