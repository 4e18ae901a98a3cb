"""LM Studio's downloads, which are polled, and its instances, which alone can be unloaded."""

import asyncio
from contextlib import aclosing

import httpx
import pytest
from support.backends import against_bytes, against_imitation, chat_request, folded

from contract.errors import (
    BackendStalled,
    BackendUnreachable,
    BadEndpoint,
    DiskFull,
    ModelMissing,
)
from contract.events import Done, Progress
from contract.models import LoadRequest, PullRequest, UnloadRequest
from workers.backends.openai.lmstudio import LmStudio

TOTAL = 5_000_000
NEW = "qwen/qwen3-4b"


async def pulled(backend: LmStudio, model: str) -> list[Progress]:
    backend.poll_s = 0.001
    *steps, last = [event async for event in backend.pull(PullRequest(model=model))]
    assert last == Done()
    return [step for step in steps if isinstance(step, Progress)]


async def test_a_download_reports_its_bytes_until_it_is_complete() -> None:
    async with against_imitation("lmstudio") as (backend, _):
        steps = await pulled(backend, NEW)
        names = {report.name for report in await backend.models()}

    assert [steps[0].overall_completed_bytes, steps[-1].overall_completed_bytes] == [0, TOTAL]
    assert {TOTAL} == {step.overall_total_bytes for step in steps}
    assert [steps[0].status, steps[-1].status] == ["downloading", "completed"]
    assert NEW in names


async def test_what_is_there_already_is_no_job() -> None:
    async with against_imitation("lmstudio") as (backend, server):
        [step] = await pulled(backend, "scripted-story")

        assert not any("status" in path for path in server.seen.requests)
    assert step.status == "already_downloaded"


async def test_the_error_of_a_failed_download_has_the_reason() -> None:
    async with against_imitation("lmstudio") as (backend, _):
        with pytest.raises(DiskFull, match="no space left"):
            await pulled(backend, "scripted-story:fail=crash:3")


async def test_a_model_that_no_catalog_has_is_missing() -> None:
    async with against_imitation("lmstudio") as (backend, _):
        with pytest.raises(ModelMissing):
            await pulled(backend, "scripted-story:fail=missing")


async def test_some_polls_may_get_lost_but_not_all() -> None:
    async with against_imitation("lmstudio") as (backend, _):
        assert await pulled(backend, "scripted-story:fail=drop,times=5")
        with pytest.raises(BackendUnreachable):
            await pulled(backend, "scripted-echo:fail=drop")


async def test_a_download_without_progress_is_given_up() -> None:
    async with against_imitation("lmstudio") as (backend, _):
        backend.stuck_s = 0.05
        with pytest.raises(BackendStalled, match="downloaded nothing"):
            await pulled(backend, "scripted-story:fail=stall")


async def test_to_cancel_a_pull_stops_the_asking() -> None:
    # ollama #13142: a pull cannot be cancelled.
    async with against_imitation("lmstudio") as (backend, server):
        backend.poll_s = 0.001
        async with aclosing(backend.pull(PullRequest(model="scripted-story:fail=stall"))) as steps:
            await anext(steps)
            await anext(steps)
        before = server.seen.requests.total()
        await asyncio.sleep(0.02)

        assert before == server.seen.requests.total()


async def test_a_loaded_model_gets_no_second_instance() -> None:
    async with against_imitation("lmstudio") as (backend, server):
        await folded(backend.load(LoadRequest(model="scripted-story")))
        await folded(backend.load(LoadRequest(model="scripted-story")))

        assert server.seen.requests["/api/v1/models/load"] == 1


async def test_every_instance_of_a_model_is_unloaded_and_one_by_its_own_name() -> None:
    bodies: list[str] = []
    instances = [{"id": "m"}, {"id": "m:2"}, {"id": "m:3"}]

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            listing = {"models": [{"key": "org/m", "loaded_instances": instances}]}
            return httpx.Response(200, json=listing)
        bodies.append(request.content.decode())
        return httpx.Response(200, json={"instance_id": "x"})

    async with against_bytes("lmstudio", handler=handler) as backend:
        await folded(backend.unload(UnloadRequest(model="m:2")))
        await folded(backend.unload(UnloadRequest(model="org/m")))

    assert [f'{{"instance_id":"{id}"}}' for id in ("m:2", "m", "m:2", "m:3")] == bodies


async def test_a_version_without_these_paths_raises_not_supported() -> None:
    body = b'{"error":"Unexpected endpoint or method. (POST /api/v1/models/download)"}'
    async with against_bytes("lmstudio", body, content_type="application/json") as backend:
        with pytest.raises(BadEndpoint, match="Unexpected endpoint"):
            await pulled(backend, NEW)
        with pytest.raises(BadEndpoint, match="Unexpected endpoint"):
            await folded(backend.chat(chat_request("m")))
