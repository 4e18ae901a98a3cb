"""Events of a llama-server in router mode: loads, downloads and their failures."""

from contextlib import aclosing
from typing import Any

import httpx
import pytest
from support.backends import against_bytes, against_imitation, folded

from contract.errors import (
    BackendRejected,
    ModelMissing,
    NotSupported,
    ServerFault,
    TruncatedStream,
)
from contract.events import Done, Phase, Progress
from contract.models import DeleteRequest, LoadRequest, PullRequest
from workers.backends.openai.llamacpp_router import (
    DownloadProgress,
    LlamaRouter,
    has_downloaded,
    load_progress,
    model_report,
    parse_event,
)
from workers.backends.protocols import Delete, ManageModels, Pull

TOTAL = 5_000_000
NEW = "ggml-org/gemma-3-4b-it-GGUF:Q4_K_M"


async def pulled(backend: LlamaRouter, model: str) -> list[Progress]:
    *steps, last = [event async for event in backend.pull(PullRequest(model=model))]
    assert last == Done()
    return [step for step in steps if isinstance(step, Progress)]


async def test_it_pulls_and_deletes_but_makes_no_models() -> None:
    async with against_imitation("llamacpp-router") as (backend, _):
        assert isinstance(backend, Pull)
        assert isinstance(backend, Delete)
        assert not isinstance(backend, ManageModels)


async def test_a_load_reports_its_progress() -> None:
    slow = "scripted-story:load=0.05"
    async with against_imitation("llamacpp-router", slow) as (backend, _):
        events = [event async for event in backend.load(LoadRequest(model=slow))]

    phases = [event.progress for event in events if isinstance(event, Phase)]
    assert phases == [None, 0.25, 0.5]
    assert events[-1] == Done()


async def test_a_model_whose_server_ends_did_not_load() -> None:
    broken = "scripted-story:fail=crash"
    async with against_imitation("llamacpp-router", broken) as (backend, _):
        with pytest.raises(ServerFault, match="ended with code 1"):
            await folded(backend.load(LoadRequest(model=broken)))


async def test_a_load_of_another_client_is_followed() -> None:
    slow = "scripted-story:load=0.05"
    async with (
        against_imitation("llamacpp-router", slow) as (backend, _),
        aclosing(backend.load(LoadRequest(model=slow))) as first,
    ):
        await anext(first)
        await anext(first)
        events = [event async for event in backend.load(LoadRequest(model=slow))]

    assert events[-1] == Done()


async def test_a_version_without_events_is_polled() -> None:
    states = iter(("unloaded", "loading", "loading", "loaded"))

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/models/sse":
            return httpx.Response(404, json={"error": {"message": "File Not Found", "code": 404}})
        if request.method == "POST":
            return httpx.Response(200, json={"success": True})
        return httpx.Response(200, json={"data": [{"id": "m", "status": {"value": next(states)}}]})

    async with against_bytes("llamacpp-router", handler=handler) as backend:
        events = [event async for event in backend.load(LoadRequest(model="m"))]

    assert events == [Phase(phase="loading"), Done()]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model":1}'])
def test_invalid_events_are_ignored(raw: bytes) -> None:
    assert parse_event(raw).get("event") is None


async def test_a_download_adds_up_its_files() -> None:
    async with against_imitation("llamacpp-router") as (backend, _):
        steps = await pulled(backend, NEW)
        names = {model.name for model in await backend.models()}

    assert steps[0].overall_completed_bytes == TOTAL // 10
    assert steps[-2].overall_completed_bytes == steps[-2].overall_total_bytes == TOTAL
    assert steps[-1].status == "success"
    assert NEW in names


async def test_what_is_there_is_not_downloaded_again() -> None:
    async with against_imitation("llamacpp-router") as (backend, _):
        [step] = await pulled(backend, "scripted-story")

    assert step.status == "success"


@pytest.mark.parametrize(
    ("fault", "error"), [("crash:3", ServerFault), ("missing", BackendRejected)]
)
async def test_a_download_that_fails_is_an_error(fault: str, error: type[Exception]) -> None:
    async with against_imitation("llamacpp-router") as (backend, _):
        with pytest.raises(error):
            await pulled(backend, f"scripted-story:fail={fault}")


@pytest.mark.parametrize(
    ("model", "listed", "is_there"),
    [
        ("org/m:Q8_0", "org/m:Q8_0", True),
        ("org/m:q8_0", "org/m:Q8_0", True),
        ("org/m", "org/m:Q4_K_M", True),
        ("org/m", "org/mm:Q4_K_M", False),
        ("org/m:Q8_0", "org/m:Q4_K_M", False),
    ],
)
def test_a_download_is_found_under_the_name_that_it_got(
    model: str, listed: str, *, is_there: bool
) -> None:
    assert is_there == has_downloaded(model, [{"id": listed}])


async def test_to_cancel_a_pull_stops_the_download() -> None:
    # ollama #13142: a pull cannot be cancelled.
    model = "scripted-story:rate=100"
    async with against_imitation("llamacpp-router") as (backend, server):
        async with aclosing(backend.pull(PullRequest(model=model))) as steps:
            await anext(steps)

        assert server.seen.requests["/models/unload"] == 1
        assert model not in {report.name for report in await backend.models()}


async def test_only_what_was_downloaded_is_deleted() -> None:
    async with against_imitation("llamacpp-router", "org/mine:Q4") as (backend, _):
        assert [Done()] == [e async for e in backend.delete(DeleteRequest(model="org/mine:Q4"))]
        with pytest.raises(ModelMissing):
            await folded(backend.delete(DeleteRequest(model="org/mine:Q4")))
        with pytest.raises(NotSupported, match="preset"):
            await folded(backend.delete(DeleteRequest(model="scripted-story")))


async def test_a_router_that_stops_telling_is_a_failure() -> None:
    event = b'data: {"model":"m","event":"download_progress","data":{"u":{"done":1,"total":2}}}\n\n'

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/models/sse":
            return httpx.Response(200, content=event)
        return httpx.Response(200, json={"success": True})

    async with against_bytes("llamacpp-router", handler=handler) as backend:
        with pytest.raises(TruncatedStream):
            await pulled(backend, "m")


@pytest.mark.parametrize(
    "data",
    [
        {"u": {"done": 1, "total": 4}, "v": {"done": 2, "total": 6}},
        {"progress": {"u": {"done": 1, "total": 4}, "v": {"done": 2, "total": 6}}},
    ],
    ids=["documented", "implemented"],
)
def test_bytes_are_read_in_both_shapes(data: dict[str, Any]) -> None:
    step = DownloadProgress().progress(data)

    assert (step.overall_completed_bytes, step.overall_total_bytes) == (3, 10)


@pytest.mark.parametrize(
    ("progress", "part"),
    [
        ({"stages": ["a", "b"], "current": "b", "value": 0.5}, 0.75),
        ({"stages": ["a"], "current": "a", "value": 1}, 1.0),
        ({"value": 0.5}, 0.5),
        ({"stages": ["a"]}, None),
        (None, None),
    ],
)
def test_the_stages_of_a_load_follow_each_other(progress: Any, part: float | None) -> None:
    assert part == load_progress({"status": "loading", "progress": progress})


def test_traits_are_reported_once_a_model_was_loaded() -> None:
    item = {"id": "m", "architecture": {"input_modalities": ["text", "image"]}}
    cold = model_report(item | {"status": {"value": "unloaded", "args": []}}, {})
    props = {
        "chat_template_caps": {"supports_tools": True},
        "default_generation_settings": {"n_ctx": 4096},
    }
    warm = model_report(item | {"status": {"value": "sleeping", "args": []}}, props)

    assert (cold.warm, cold.traits, cold.context_length) == (
        False,
        ("chat", "schema", "vision"),
        None,
    )
    assert (warm.warm, warm.traits[-1], warm.context_length) == (True, "tools", 4096)


def test_an_embedding_model_is_recognized_by_its_options() -> None:
    told_so = {"value": "loaded", "args": ["llama-server", "--embeddings"]}
    embedder = model_report({"id": "e", "status": told_so, "meta": {"n_embd": 384}}, {})

    assert (embedder.traits, embedder.dimension) == (("embed",), 384)
    assert embedder.lacks == ("chat", "rerank")


def test_a_ranking_model_is_recognized_by_its_options() -> None:
    args = ["llama-server", "--embeddings", "--reranking"]
    ranker = model_report({"id": "r", "status": {"value": "loaded", "args": args}}, {})

    assert (ranker.traits, ranker.lacks) == (("rerank",), ("chat", "embed"))
