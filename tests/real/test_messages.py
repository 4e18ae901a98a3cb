"""Anthropic's client over a real llama.cpp server: messages, streams, tools, counted tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from support.message_grammar import checked
from support.processes import worker
from support.shim import serving
from support.up import wait_until

from fleet.real.run_llama_server import LlamaServer, running_llama_server
from fleet.real.tiny_model import tiny_model

pytestmark = pytest.mark.real

HEADERS = {"anthropic-version": "2023-06-01"}
HELLO: Any = [{"role": "user", "content": "tell"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def tools_server(llama_binary: Path) -> Iterator[LlamaServer]:
    with running_llama_server(model=tiny_model(calls_tools=True), slots=1) as server:
        yield server


@pytest.fixture
def at(redis_url: str, tmp_path: Path, tools_server: LlamaServer) -> Iterator[str]:
    """The address of a shim before that server."""
    env = {"LLM_LLAMACPP": tools_server.url.replace("http://", "llamacpp://")}
    with serving(redis_url) as url, worker(redis_url, tmp_path, "llamacpp", **env):
        assert wait_until(lambda: bool(httpx.get(f"{url}/v1/models").json()["data"]), 20)
        yield url


def test_messages_streams_tools_and_counts_are_a_real_servers(
    at: str, tools_server: LlamaServer
) -> None:
    with Anthropic(base_url=at, api_key="unused", max_retries=0) as client:
        model = client.models.list().data[0].id
        whole = client.messages.create(model=model, max_tokens=20, messages=HELLO)
        with client.messages.stream(
            model=model,
            max_tokens=600,
            messages=HELLO,
            tools=[WEATHER],
            tool_choice={"type": "any"},
            extra_body={"temperature": 0},
        ) as stream:
            called = stream.get_final_message()
        counted = client.messages.with_raw_response.count_tokens(model=model, messages=HELLO)
    body = {"model": model, "max_tokens": 20, "messages": HELLO, "stream": True}
    told = checked(httpx.post(f"{at}/v1/messages", json=body, headers=HEADERS, timeout=60).content)

    assert whole.usage.output_tokens > 0
    call: Any = next(block for block in called.content if block.type == "tool_use")
    assert call.name == "get_weather"
    assert call.input["city"] in {"Oslo", "Rome"}
    assert "x-fleet-estimated" not in counted.headers
    total = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert counted.parse().input_tokens == total
    assert told.usage["output_tokens"] > 0
