"""Real llama.cpp servers with tiny models of random weights; skipped loudly where none is built.

`LLM_FLEET_REAL=require` makes a missing server a failure: CI sets it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.real.llama_server import NotBuilt, find
from fleet.real.run_llama_server import LlamaServer, running_llama_server


@pytest.fixture(scope="session")
def llama_binary() -> Path:
    """The binary; without it the test is skipped, or fails where it is required."""
    try:
        return find()
    except NotBuilt as missing:
        told = f"NO REAL SERVER, NOTHING IS PROVED: {missing}"
        if os.environ.get("LLM_FLEET_REAL") == "require":
            pytest.fail(told)
        pytest.skip(told)


@pytest.fixture(scope="session")
def chat_server(llama_binary: Path) -> Iterator[LlamaServer]:
    """Sixteen slots that chat."""
    with running_llama_server() as server:
        yield server


@pytest.fixture(scope="session")
def embed_server(llama_binary: Path) -> Iterator[LlamaServer]:
    """The same model, for vectors."""
    with running_llama_server(embeddings=True) as server:
        yield server
