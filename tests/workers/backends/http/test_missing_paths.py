"""A server without the path that a job needs."""

from typing import Any

import httpx
import pytest
from support.backends import FunctionTransport, folded

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest
from contract.errors import BackendError, ModelMissing, NotSupported
from contract.images import ImageRequest
from workers.backends.ollama.adapter import Ollama
from workers.backends.openai.adapter import OpenAIImages
from workers.backends.openai.dialects import DIALECTS

CHAT = ChatRequest(model="m", messages=(Message(role="user", content="x"),))
EMBED = EmbedRequest(model="m", input=("x",))
IMAGE = ImageRequest(model="m", prompt="x")


def answering(body: Any, status: int) -> FunctionTransport:
    return FunctionTransport(lambda _: httpx.Response(status, json=body))


async def refusal(adapter: Any, stream: Any) -> BackendError:
    try:
        with pytest.raises(BackendError) as caught:
            await folded(stream)
    finally:
        await adapter.aclose()
    return caught.value


@pytest.mark.parametrize(
    ("method", "request_", "path"),
    [
        ("embed", EMBED, "/embeddings"),
        ("chat", CHAT, "/chat/completions"),
        ("image", IMAGE, "/images/generations"),
    ],
)
@pytest.mark.parametrize("status", [404, 405])
async def test_an_openai_shaped_server_without_it_is_named_with_the_path(
    method: str, request_: Any, path: str, status: int
) -> None:
    adapter = OpenAIImages(
        "box", "http://box/v1", DIALECTS["generic"],
        transport=answering({"detail": "Not Found"}, status),
    )  # fmt: skip
    error = await refusal(adapter, getattr(adapter, method)(request_))

    assert isinstance(error, NotSupported)
    assert f"backend box has no {path} at http://box/v1" in error.message


async def test_an_ollama_without_embed_is_named_with_the_path() -> None:
    adapter = Ollama("box", "http://box", transport=answering({"detail": "Not Found"}, 404))
    error = await refusal(adapter, adapter.embed(EMBED))

    assert isinstance(error, NotSupported)
    assert "backend box has no /api/embed at http://box" in error.message


async def test_an_error_about_the_model_is_not_one_about_the_path() -> None:
    body = {"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}
    adapter = OpenAIImages(
        "box", "http://box/v1", DIALECTS["generic"], transport=answering(body, 404)
    )

    assert isinstance(await refusal(adapter, adapter.embed(EMBED)), ModelMissing)
