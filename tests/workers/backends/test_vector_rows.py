"""Vectors of a response that cannot be used are an error."""

import pytest
from support.backends import against_bytes, folded

from contract.embeddings import EmbedRequest
from contract.errors import NotFinite, NotSupported


async def test_null_in_a_vector_is_an_error() -> None:
    async with against_bytes("ollama", b'{"embeddings":[[1.0,null]]}') as backend:
        with pytest.raises(NotFinite, match=r"input\[0\]: number 1"):
            await folded(backend.embed(EmbedRequest(model="m", input=("a",))))


async def test_a_width_other_than_the_requested_one_is_refused() -> None:
    raw = b'{"data":[{"index":0,"embedding":[1,2,3]}]}'
    async with against_bytes("llamacpp", raw) as backend:
        request = EmbedRequest(model="m", input=("a",), dimensions=2)
        with pytest.raises(NotSupported, match="vectors of 3 numbers"):
            await folded(backend.embed(request))
