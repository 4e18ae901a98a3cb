"""Ollama's model endpoints: pull, load, unload and show."""

import json
from typing import Any

import httpx
import pytest
from support.backends import against_bytes, folded

from contract.errors import TruncatedStream
from contract.models import LoadRequest, PullRequest, ShowRequest, UnloadRequest


async def test_a_pull_adds_up_its_layers_and_demands_success() -> None:
    lines = (
        b'{"status":"pulling manifest"}\n'
        b'{"status":"pulling aa","digest":"sha256:aa","total":100}\n'
        b'{"status":"pulling aa","digest":"sha256:aa","total":100,"completed":100}\n'
        b'{"status":"pulling bb","digest":"sha256:bb","total":50,"completed":10}\n'
    )
    async with against_bytes("ollama", lines + b'{"status":"success"}\n') as backend:
        result = await folded(backend.pull(PullRequest(model="m")))
    assert result.progress is not None
    assert (
        result.progress.overall_total_bytes,
        result.progress.overall_completed_bytes,
    ) == (150, 110)

    async with against_bytes("ollama", lines) as backend:
        with pytest.raises(TruncatedStream, match="success"):
            await folded(backend.pull(PullRequest(model="m")))


async def test_loading_falls_back_to_embed_for_an_embedding_model() -> None:
    requests: list[tuple[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append((request.url.path, json.loads(request.content)))
        if request.url.path == "/api/chat" and "keep_alive" not in requests[-1][1]:
            return httpx.Response(400, json={"error": '"m" does not support chat'})
        return httpx.Response(200, json={"embeddings": []})

    async with against_bytes("ollama", handler=handler) as backend:
        await folded(backend.load(LoadRequest(model="m")))
        await folded(backend.unload(UnloadRequest(model="m")))

    assert [path for path, _ in requests] == ["/api/chat", "/api/embed", "/api/chat"]
    assert requests[2][1]["keep_alive"] == 0


async def test_show_is_requested_once_per_digest() -> None:
    shows: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        model = {"name": "m:latest", "digest": "d1", "size": 5, "details": {}}
        match request.url.path:
            case "/api/tags":
                return httpx.Response(200, json={"models": [model]})
            case "/api/ps":
                return httpx.Response(200, json={"models": [model]})
            case _:
                shows.append(request.url.path)
                info = {"general.architecture": "bert", "bert.context_length": 512.0}
                info |= {"bert.embedding_length": 384}
                shown = {"capabilities": ["embedding"], "model_info": info}
                return httpx.Response(200, json=shown)

    async with against_bytes("ollama", handler=handler) as backend:
        await backend.models()
        [model] = await backend.models()
        result = await folded(backend.show(ShowRequest(model="m")))

    assert (
        model.traits,
        model.dimension,
        model.context_length,
        model.warm,
    ) == (("embed",), 384, 512, True)
    assert len(shows) == 2
    assert result.details is not None
