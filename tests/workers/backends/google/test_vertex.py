"""Vertex: its addresses, its tokens, and the embeddings that are its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.backends import FunctionTransport, against_server, chat_request, folded

from contract.embeddings import EmbedRequest, unpack
from contract.errors import (
    AuthenticationRefused,
    BackendUnreachable,
    NotSupported,
)
from workers.backend_registry import build
from workers.backends.dsn import parse
from workers.backends.google.credentials import GoogleToken
from workers.backends.google.vertex import Vertex
from workers.scripted.script import vector
from workers.scripted.server import ScriptedServer, serve


def key_file(path: Path, token_uri: str) -> Path:
    """A service account's file, as the console gives it."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    fields = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "fleet@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(fields))
    return path


class Cloud:
    """Responds as Vertex does, and records the requests."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.tokens: list[str] = []
        self.refused: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.tokens.append(request.headers["authorization"])
        if request.headers.get("authorization") in self.refused:
            return httpx.Response(401, json={"error": {"code": 401, "message": "expired"}})
        return httpx.Response(200, json={"embedding": {"values": [0.6, 0.8]}})


@asynccontextmanager
async def signed(
    tmp_path: Path, **options: Any
) -> AsyncIterator[tuple[Vertex, Cloud, ScriptedServer]]:
    """A backend whose tokens come from a server on loopback."""
    cloud = Cloud()
    async with serve() as server:
        path = await asyncio.to_thread(key_file, tmp_path / "key.json", f"{server.url}/token")
        backend = Vertex(
            "vertex",
            "https://aiplatform.test/v1beta1",
            project="p",
            location="eu",
            signer=GoogleToken(path, **options),
            transport=FunctionTransport(cloud),
        )
        try:
            yield backend, cloud, server
        finally:
            await backend.aclose()


EMBED = EmbedRequest(model="gemini-embedding-2", input=("a",))


async def test_one_token_is_fetched_and_reused(tmp_path: Path) -> None:
    async with signed(tmp_path) as (backend, cloud, server):
        await asyncio.gather(*(folded(backend.embed(EMBED)) for _ in range(5)))

    assert server.seen.requests["/token"] == 1
    assert cloud.tokens == ["Bearer ya29.scripted-1"] * 5


async def test_a_token_that_was_taken_back_is_replaced_once(tmp_path: Path) -> None:
    async with signed(tmp_path, quota_project="payer") as (backend, cloud, _):
        cloud.refused.add("Bearer ya29.scripted-1")
        await folded(backend.embed(EMBED))
        cloud.refused.add("Bearer ya29.scripted-2")
        cloud.refused.add("Bearer ya29.scripted-3")
        with pytest.raises(AuthenticationRefused):
            await folded(backend.embed(EMBED))

    assert cloud.tokens[:2] == ["Bearer ya29.scripted-1", "Bearer ya29.scripted-2"]
    assert len(cloud.tokens) == 4
    assert cloud.requests[0].headers["x-goog-user-project"] == "payer"


async def test_the_loop_is_not_blocked_while_a_token_is_fetched(tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with signed(tmp_path) as (backend, _, _):
        ticking = asyncio.create_task(tick())
        await folded(backend.embed(EMBED))
        ticking.cancel()

    assert ticks > 10


async def test_a_file_that_is_no_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    await asyncio.to_thread(path.write_text, '{"type": "service_account", "private_key": "s3cret"}')
    with pytest.raises(AuthenticationRefused) as caught:
        await GoogleToken(path).token()
    with pytest.raises(AuthenticationRefused, match="No such file"):
        await GoogleToken(tmp_path / "nothing.json").token()

    assert "s3cret" not in str(caught.value)


async def test_a_token_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    path = await asyncio.to_thread(key_file, tmp_path / "key.json", "http://127.0.0.1:1/token")
    with pytest.raises(BackendUnreachable, match="no Google access token now"):
        await GoogleToken(path).token()


@pytest.mark.parametrize(
    ("dsn", "url", "options"),
    [
        ("vertex://p@", "https://aiplatform.googleapis.com/v1beta1", {"location": "global"}),
        ("vertex://p@eu", "https://aiplatform.eu.rep.googleapis.com/v1beta1", {"location": "eu"}),
        (
            "vertex://p@europe-west4?credentials=/k.json",
            "https://europe-west4-aiplatform.googleapis.com/v1beta1",
            {"location": "europe-west4", "credentials": "/k.json"},
        ),
        (
            "vertex+http://p@127.0.0.1:9/v1?location=us",
            "http://127.0.0.1:9/v1",
            {"location": "us"},
        ),
    ],
)
def test_a_location_names_its_host(dsn: str, url: str, options: dict[str, str]) -> None:
    config = parse("LLM_CLOUD", dsn)

    assert (config.type, config.url) == ("vertex", url)
    assert config.options == {"project": "p", **options}
    assert config.key is None


async def test_express_mode_has_a_key_and_no_project() -> None:
    config = parse("LLM_CLOUD", "vertex://:k3y@")
    backend = build(config)
    assert isinstance(backend, Vertex)
    await backend.aclose()

    assert config.key is not None
    assert backend._path("gemini-3-pro", "x") == "/publishers/google/models/gemini-3-pro:x"


def test_a_project_or_a_key_is_required() -> None:
    with pytest.raises(NotSupported, match="needs a project"):
        build(parse("LLM_CLOUD", "vertex://eu"))


async def test_the_path_of_a_model_has_project_and_location(tmp_path: Path) -> None:
    async with signed(tmp_path) as (backend, cloud, _):
        await folded(backend.embed(EMBED.model_copy(update={"input": ("a", "b"), "dimensions": 2})))

    where = "/v1beta1/projects/p/locations/eu/publishers/google/models/"
    assert cloud.requests[0].url.path == f"{where}gemini-embedding-2:embedContent"
    assert json.loads(cloud.requests[1].content) == {
        "content": {"parts": [{"text": "b"}]},
        "embedContentConfig": {"autoTruncate": True, "outputDimensionality": 2},
    }


async def test_text_models_predict_many_at_once_and_the_first_gemini_one_alone() -> None:
    async with against_server("vertex") as (backend, server):
        texts = tuple(f"text {number}" for number in range(5))
        request = EmbedRequest(model="scripted-embed", input=texts, dimensions=8)
        result = await folded(backend.embed(request))

    assert server.seen.requests.total() == 1
    assert result.usage.prompt_tokens == 10
    assert unpack(result.embeddings.data, 8)[4] == pytest.approx(vector("text 4", 8), abs=1e-6)


@pytest.mark.parametrize(("status", "is_allowed"), [(403, True), (404, True), (401, False)])
async def test_an_account_that_may_not_list_uses_the_configured_models(
    status: int,
    is_allowed: bool,  # noqa: FBT001
) -> None:
    refusal = FunctionTransport(lambda _: httpx.Response(status, json={"error": {"code": status}}))
    url = "https://aiplatform.test/v1beta1"
    backend = Vertex("v", url, project="p", models=("gemini-3-pro",), transport=refusal)
    if is_allowed:
        assert [each.name for each in await backend.models()] == ["gemini-3-pro"]
    else:
        with pytest.raises(AuthenticationRefused):
            await backend.check()
    await backend.aclose()


async def test_it_chats_as_gemini_does() -> None:
    async with against_server("vertex") as (backend, server):
        result = await folded(backend.chat(chat_request("scripted-echo", "one two")))

    assert result.content == "one two"
    assert "/projects/p/locations/global/" in next(iter(server.seen.requests))
