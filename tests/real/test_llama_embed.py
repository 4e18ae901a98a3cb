"""The OpenAI adapter against the real llama-server: vectors."""

from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from contract.embeddings import EmbedRequest, unpack
from contract.errors import (
    InputTooLarge,
    NotSupported,
)
from contract.events import Done, Vectors
from fleet.real.run_llama_server import LlamaServer
from fleet.real.tiny_model import DEFAULT
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import LLAMACPP

pytestmark = pytest.mark.real


def speaking(server: LlamaServer) -> aclosing[OpenAI]:
    return aclosing(OpenAI("llamacpp", server.url, LLAMACPP))


async def embed(server: LlamaServer, *texts: str, **fields: Any) -> tuple[np.ndarray, Done]:
    async with speaking(server) as backend:
        request = EmbedRequest(model="tiny", input=texts, **fields)
        *blocks, done = [event async for event in backend.embed(request)]
    assert isinstance(done, Done)
    rows = [row for b in blocks if isinstance(b, Vectors) for row in unpack(b.data, b.dimension)]
    return np.array(rows), done


async def test_vectors_have_the_models_width_and_the_tokens_are_counted(
    embed_server: LlamaServer,
) -> None:
    rows, done = await embed(embed_server, "the queue", "a model", "is it")

    assert rows.shape == (3, DEFAULT.width)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1], abs=1e-3)
    assert done.usage.prompt_tokens > 3


async def test_rows_are_those_of_their_texts_however_many_there_are(
    embed_server: LlamaServer,
) -> None:
    texts = [f"the queue {at}" for at in range(150)]
    rows, _ = await embed(embed_server, *texts)
    alone, _ = await embed(embed_server, texts[97])

    assert rows.shape == (150, DEFAULT.width)
    assert float(rows[97] @ alone[0]) > 0.999
    assert int((rows @ alone[0]).argmax()) == 97


async def test_the_roster_hears_of_an_embedding_model(embed_server: LlamaServer) -> None:
    async with speaking(embed_server) as backend:
        (report,) = await backend.models()

    assert report.traits == ("embed",)
    assert report.dimension == DEFAULT.width


async def test_a_text_longer_than_the_batch_is_told_apart(embed_server: LlamaServer) -> None:
    with pytest.raises(InputTooLarge):
        await embed(embed_server, "the queue " * 3000)


async def test_dimensions_that_the_server_cannot_cut_to_are_refused(
    embed_server: LlamaServer,
) -> None:
    with pytest.raises(NotSupported, match="dimensions"):
        await embed(embed_server, "a", dimensions=8)


async def test_ids_of_tokens_are_taken_as_well(embed_server: LlamaServer) -> None:
    request = EmbedRequest(model="tiny", tokens=((5, 6, 7), (8,)))
    async with speaking(embed_server) as backend:
        *blocks, done = [event async for event in backend.embed(request)]

    assert sum(block.count for block in blocks if isinstance(block, Vectors)) == 2
    assert isinstance(done, Done)
    assert done.usage.prompt_tokens == 4
