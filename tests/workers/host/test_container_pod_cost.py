"""The deletion cost of a worker's pod, as the API of Kubernetes receives it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from workers.host.container import ANNOTATION, PodCost
from workers.settings import WorkerSettings


@asynccontextmanager
async def kubernetes(status: int = 200) -> AsyncGenerator[tuple[str, list[Any]]]:
    """A server that takes patches of pods; yields its address and what it received."""
    received: list[Any] = []

    async def patch(request: web.Request) -> web.Response:
        received.append((request.path, dict(request.headers), await request.json()))
        return web.json_response({}, status=status)

    application = web.Application()
    application.router.add_patch("/{path:.*}", patch)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", received
    finally:
        await runner.cleanup()


def settings(url: str, account: Path) -> WorkerSettings:
    (account / "token").write_text("t0ken\n")
    return WorkerSettings(
        pod_name="box-1", pod_namespace="llm", kubernetes_url=url, service_account=account
    )


async def test_each_change_of_the_number_of_jobs_is_written_once(tmp_path: Path) -> None:
    jobs = 0
    async with kubernetes() as (url, received):
        cost = PodCost(settings(url, tmp_path), lambda: jobs)
        for jobs in (0, 0, 3, 3, 0):  # noqa: B007 - the closure reads it
            await cost.write()

    path, headers, _ = received[0]
    costs = [body["metadata"]["annotations"][ANNOTATION] for _, _, body in received]
    assert path == "/api/v1/namespaces/llm/pods/box-1"
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["Content-Type"] == "application/merge-patch+json"
    assert costs == ["0", "3", "0"]


async def test_a_refusal_is_raised_and_tried_again(tmp_path: Path) -> None:
    async with kubernetes(403) as (url, received):
        cost = PodCost(settings(url, tmp_path), lambda: 1)
        for _ in range(2):
            with pytest.raises(aiohttp.ClientResponseError):
                await cost.write()

    assert len(received) == 2
