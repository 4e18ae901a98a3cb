"""Every operation of an adapter works, however its user has written the server's address.

Subjects: workers/backends/dsn.py, workers/backend_registry.py.
"""

import asyncio
from contextlib import aclosing
from typing import Any, Final

import pytest
from support.backends import chat_request, folded

from contract.chat import CountRequest, Message
from contract.embeddings import EmbedRequest
from contract.images import ImageRequest
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    LoadRequest,
    PullRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.rerank import RerankRequest
from workers.backend_registry import build
from workers.backends.dsn import BackendConfig, parse
from workers.scripted.server import IMITATIONS, serve

MODEL, PULLED = "scripted-echo", "pulled"
USER: Final = (Message(role="user", content="a"),)
REQUESTS: Final[dict[str, Any]] = {
    "chat": chat_request(MODEL, "hi"),
    "embed": EmbedRequest(model="scripted-embed", input=("a",)),
    "rerank": RerankRequest(model="scripted-rerank", query="a", documents=("a", "b")),
    "count": CountRequest(model=MODEL, messages=USER),
    "list": ListRequest(),
    "load": LoadRequest(model=MODEL),
    "unload": UnloadRequest(model=MODEL),
    "show": ShowRequest(model=MODEL),
    "pull": PullRequest(model=PULLED),
    "copy": CopyRequest(model=PULLED, destination="copied"),
    "create": CreateRequest(model="made", source=MODEL),
    "delete": DeleteRequest(model=PULLED),
    "image": ImageRequest(model="scripted-image", prompt="a", width=64, height=64),
}
"""By the method; those without an argument are `check`, `models`, `slots` and `running`."""
PATHS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("llamacpp", "llamacpp-router", "llamaswap", "vllm", "openai", "generic", "localai", "tei"),
        ("", "/v1"),
    ),
    "infinity": ("",),
    "lmstudio": ("", "/v1", "/api/v1", "/api/v0", "/api"),
    "ollama": ("", "/v1", "/api"),
    "sd": ("", "/v1", "/sdcpp/v1", "/sdapi/v1"),
    "a1111": ("", "/sdapi/v1", "/sdapi"),
    "gemini": ("", "/v1beta", "/v1beta/openai"),
}


@pytest.mark.parametrize("end", ["", "/", "//"], ids=["bare", "slash", "slashes"])
@pytest.mark.parametrize(
    ("type", "path"), [(type, path) for type, paths in PATHS.items() for path in paths]
)
async def test_every_operation_finds_its_path(type: str, path: str, end: str) -> None:
    async with serve(imitate=type if type in IMITATIONS else None) as server:
        options = {"dev": "1"} if type == "vllm" else {}
        config = BackendConfig.model_validate(
            {"name": "b", "type": type, "url": f"{server.url}{path}{end}", "options": options}
        )
        for name in server._catalog.names:
            server._catalog.set_warm(name, warm=True)
        async with asyncio.timeout(30), aclosing(build(config)) as backend:
            vars(backend).update(poll_s=0.001)
            done = await called(backend)

    assert len(done) > 2
    assert not [each for each in done.items() if each[1]]


async def called(backend: Any) -> dict[str, str]:
    """What each operation that the backend has says is wrong; "" if it is done."""
    done: dict[str, str] = {}
    for name in ("check", "models", "slots"):
        if hasattr(backend, name):
            await getattr(backend, name)()
            done[name] = ""
    if hasattr(backend, "running"):
        done["running"] = wrong(await folded(backend.running()))
    for name, request in REQUESTS.items():
        if hasattr(backend, name):
            done[name] = wrong(await folded(getattr(backend, name)(request)))
    return done


def wrong(result: Any) -> str:
    return "" if result.error is None else str(result.error.message)


@pytest.mark.parametrize(
    ("type", "given", "base"),
    [
        ("lmstudio", "http://box:1/lm/api/v1/", "http://box:1/lm/v1"),
        ("lmstudio", "http://box:1/lm", "http://box:1/lm"),
        ("ollama", "https://box:1/ollama/v1", "https://box:1/ollama"),
        ("ollama", "https://box:1/rapi", "https://box:1/rapi"),
        ("generic", "https://box:1/api", "https://box:1/api"),
        ("infinity", "http://box:1/v1", "http://box:1/v1"),
        ("gemini", "https://box:1/v1", "https://box:1/v1"),
    ],
)
def test_a_path_in_front_stays_and_what_is_no_other_interface_too(
    type: str, given: str, base: str
) -> None:
    assert BackendConfig.model_validate({"name": "b", "type": type, "url": given}).url == base
    assert parse("LLM_B", f"{type}+{given}").url == base
