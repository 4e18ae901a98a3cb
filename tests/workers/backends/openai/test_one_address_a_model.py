"""One backend over many addresses, configured in a table; no key of one is ever shown."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from support.backends import FunctionTransport, chat_request, folded

from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendUnreachable,
    ModelMissing,
)
from workers.backend_registry import build
from workers.backends.dsn import BackendConfig, DsnError
from workers.backends.openai.one_address_a_model import DeclaredEndpoints
from workers.backends.protocols import Backend, Chat, Embed
from workers.config import configured, slots_of
from workers.scripted.server import serve

TABLE = """
[backends.farm]
type = "endpoints"

[[backends.farm.endpoints]]
url = "{url}"
key = "s3cret-1"
id = "scripted-echo"
label = "Parrot"
capabilities = ["chat", "tools"]
context_length = 8000
max_output_tokens = 512
token_modifier = 1.25

[[backends.farm.endpoints]]
url = "{url}/v1"
key = "s3cret-2"
id = "scripted-embed:dim=8"
capabilities = ["embed"]
dimension = 8

[[backends.farm.endpoints]]
url = "http://127.0.0.1:1"
id = "gone"
"""


@pytest.fixture(autouse=True)
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_TRUST", str(tmp_path))


def configuration(
    tmp_path: Path, url: str = "http://box.test", table: str = TABLE
) -> BackendConfig:
    file = tmp_path / "fleet.toml"
    file.write_text(table.format(url=url))
    [config] = configured({}, file)
    return config


async def test_a_request_goes_to_the_address_that_has_its_model(tmp_path: Path) -> None:
    async with serve() as server:
        backend = build(configuration(tmp_path, server.url))
        assert isinstance(backend, Backend)
        assert isinstance(backend, Chat)
        assert isinstance(backend, Embed)
        await backend.check()
        by_label = await folded(backend.chat(chat_request("Parrot", "one two")))
        by_id = await folded(backend.chat(chat_request("scripted-echo", "one two")))
        request = EmbedRequest(model="scripted-embed:dim=8", input=("a", "b"))
        vectors = (await folded(backend.embed(request))).embeddings
        with pytest.raises(BackendUnreachable):
            await folded(backend.chat(chat_request("gone")))
        with pytest.raises(ModelMissing, match="Parrot"):
            await folded(backend.chat(chat_request("nobody")))
        await backend.aclose()

    assert (by_label.content, by_id.content) == ("one two", "one two")
    assert vectors is not None
    assert (vectors.count, vectors.dimension) == (2, 8)


async def test_its_models_are_those_of_the_table(tmp_path: Path) -> None:
    backend = build(configuration(tmp_path))
    parrot, embedder, gone = await backend.models()
    await backend.aclose()

    assert (parrot.name, parrot.traits, parrot.lacks) == (
        "Parrot", ("chat", "tools"), ("embed", "rerank"),
    )  # fmt: skip
    assert (parrot.context_length, parrot.max_output_tokens) == (6400, 512)
    assert (embedder.name, embedder.dimension) == ("scripted-embed:dim=8", 8)
    assert (gone.traits, gone.lacks, gone.context_length) == ((), (), None)


async def test_each_address_gets_its_own_key(tmp_path: Path) -> None:
    seen: dict[str, str | None] = {}

    def handler(request: httpx.Request) -> httpx.Response:
        seen[request.url.host] = request.headers.get("authorization")
        return httpx.Response(404)

    config = configuration(tmp_path)
    transport = FunctionTransport(handler)
    backend = DeclaredEndpoints("farm", config.endpoints, transport=transport)
    await backend.check()
    await backend.aclose()

    assert seen == {"box.test": "Bearer s3cret-2", "127.0.0.1": None}


async def test_it_is_up_while_one_address_is_and_has_no_list_of_models(tmp_path: Path) -> None:
    gone = BackendConfig.model_validate(
        {"name": "x", "type": "endpoints", "endpoints": [{"url": "http://127.0.0.1:1", "id": "m"}]}
    )
    backend = build(gone)
    with pytest.raises(BackendUnreachable):
        await backend.check()
    await backend.aclose()


def test_no_key_is_shown(tmp_path: Path) -> None:
    config = configuration(tmp_path)

    assert "s3cret" not in f"{config!r} {config} {config.model_dump_json()}"


def test_a_backend_of_endpoints_has_slots(tmp_path: Path) -> None:
    assert slots_of(configuration(tmp_path), "chat") == 16


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "endpoints"}, "list of endpoints"),
        ({"type": "ollama", "endpoints": [{"url": "http://h", "id": "m"}]}, "no other type"),
        ({"type": "endpoints", "endpoints": [{"url": "http://h", "id": "m"}] * 2}, "labels"),
        ({"type": "endpoints", "endpoints": [{"url": "http://s3cret@h", "id": "m"}]}, "key"),
        ({"type": "endpoints", "endpoints": [{"url": "h:80", "id": "m"}]}, "must look like"),
    ],
)
def test_the_error_names_the_fault_of_the_table(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        BackendConfig.model_validate({"name": "x", **fields})

    assert "s3cret" not in str(caught.value.errors(include_input=False))


def test_an_error_of_the_file_holds_no_key(tmp_path: Path) -> None:
    table = TABLE.replace('id = "gone"', 'idd = "s3cret-3"')
    with pytest.raises(DsnError, match=r"backends\.farm") as caught:
        configuration(tmp_path, table=table)

    assert "s3cret" not in str(caught.value)
