"""LangChain's OpenAI classes, current and unmodified, against a running fleet."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import tiktoken.registry
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr
from support.fleet import Fleet, fleet

pytestmark = pytest.mark.client("langchain")

KEY = SecretStr("unused")
TWO_CALLS = "scripted-tools:calls=2"
BROKEN = "scripted-story:fail=error:3"


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("langchain")
    with fleet(folder, "ollama", "vllm", models=(TWO_CALLS, BROKEN)) as running:
        yield running


@pytest.fixture
def _vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's vocabulary is fetched from the internet; here each byte is a token."""
    name = "cl100k_base"
    ranks = {bytes([byte]): byte for byte in range(256)}
    bytewise = tiktoken.Encoding(name, pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, name, bytewise)


def chat(
    at: Fleet, model: str = "scripted-echo", backend: str = "vllm", **options: Any
) -> ChatOpenAI:
    return ChatOpenAI(
        model=model, base_url=f"{at.url}/v1", api_key=KEY, max_retries=0,
        extra_body={"backend": backend}, **options,
    )  # fmt: skip


def embeddings(at: Fleet, backend: str, *, as_text: bool, **options: Any) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        model="scripted-embed", base_url=f"{at.url}/v1", api_key=KEY, max_retries=0,
        check_embedding_ctx_length=not as_text, default_headers={"X-Fleet-Backend": backend},
        **options,
    )  # fmt: skip


@tool
def look(query: str, number: int) -> str:
    """Look something up."""
    return f"{number}: {query}"


class Answer(BaseModel):
    """What a model is asked to fill in."""

    query: str
    number: int


@pytest.mark.parametrize("backend", ["ollama", "vllm"])
@pytest.mark.feature("chat")
def test_a_chat_is_answered_and_measured(at: Fleet, backend: str) -> None:
    answer = chat(at, backend=backend).invoke("hello you")

    assert isinstance(answer, AIMessage)
    assert answer.content == "hello you"
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] == 2
    assert answer.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("backend", ["ollama", "vllm"])
@pytest.mark.feature("streams")
def test_a_chat_streams_with_its_usage(at: Fleet, backend: str) -> None:
    chunks = list(chat(at, backend=backend).stream("hello you", stream_usage=True))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk  # type: ignore[assignment] # chunks add up to a chunk

    assert [chunk.content for chunk in chunks if chunk.content] == ["hello", " you"]
    assert whole.usage_metadata
    assert whole.usage_metadata["output_tokens"] == 2


@pytest.mark.feature("chat")
async def test_asynchronous_chats_run_at_once(at: Fleet) -> None:
    async with httpx2.AsyncClient() as http:
        model = chat(at, http_async_client=http)
        answers = await asyncio.gather(*(model.ainvoke(f"n {number}") for number in range(5)))
        pieces = [piece.content async for piece in model.astream("hello you")]

    assert [answer.content for answer in answers] == [f"n {number}" for number in range(5)]
    assert "".join(map(str, pieces)) == "hello you"


@pytest.mark.parametrize("backend", ["ollama", "vllm"])
@pytest.mark.feature("tools")
def test_tools_are_called_and_their_results_taken(at: Fleet, backend: str) -> None:
    bound = chat(at, TWO_CALLS, backend).bind_tools([look])
    asked = HumanMessage("hello you")
    called = bound.invoke([asked])
    assert isinstance(called, AIMessage)
    results = [
        ToolMessage(look.invoke(call["args"]), tool_call_id=call["id"])
        for call in called.tool_calls
    ]
    again = chat(at, backend=backend).invoke([asked, called, *results])

    assert [call["name"] for call in called.tool_calls] == ["look", "look"]
    assert [result.content for result in results] == ["0: hello you", "1: hello you"]
    assert again.content == "hello you"


@pytest.mark.feature("tools", "streams")
def test_a_streamed_call_is_put_together(at: Fleet) -> None:
    chunks = list(chat(at, "scripted-tools").bind_tools([look]).stream("hello you"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk  # type: ignore[assignment] # as above

    assert isinstance(whole, AIMessage)
    (call,) = whole.tool_calls
    assert (call["name"], call["args"]["query"]) == ("look", "hello you")


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.feature("schema")
def test_an_answer_has_the_structure_that_was_asked_for(at: Fleet, method: str) -> None:
    said = '{"query":"hello","number":0}'
    model = "scripted-tools" if method == "function_calling" else "scripted-echo"
    structured = chat(at, model).with_structured_output(Answer, method=method)  # type: ignore[arg-type]

    found = structured.invoke("hello" if method == "function_calling" else said)

    assert found == Answer(query="hello", number=0)


@pytest.mark.feature("errors")
def test_what_fails_is_openais_own_error(at: Fleet) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody-has-this"):
        chat(at, "nobody-has-this").invoke("x")
    with pytest.raises(openai.APIError):
        list(chat(at, BROKEN).stream("x"))


@pytest.mark.usefixtures("_vocabulary")
@pytest.mark.feature("embeddings", "errors")
def test_texts_as_ids_of_tokens_are_refused_with_what_to_do(at: Fleet) -> None:
    # The default of LangChain; it meets servers that take text only: vllm #9500, ollama #7288.
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings(at, "ollama", as_text=False).embed_documents(["hello you"])


@pytest.mark.usefixtures("_vocabulary")
@pytest.mark.feature("embeddings")
def test_ids_of_tokens_go_to_a_backend_that_takes_them(at: Fleet) -> None:
    found = embeddings(at, "vllm", as_text=False).embed_documents(["hello you", "another"])

    assert [len(row) for row in found] == [64, 64]


@pytest.mark.parametrize("backend", ["ollama", "vllm"])
@pytest.mark.feature("embeddings")
async def test_texts_as_text_become_vectors_everywhere(at: Fleet, backend: str) -> None:
    texts = [f"text {number}" for number in range(50)]
    async with httpx2.AsyncClient() as http:
        model = embeddings(at, backend, as_text=True, http_async_client=http)
        documents = model.embed_documents(texts)
        query = await model.aembed_query("text 7")

    assert len(documents) == 50
    assert np.allclose(documents[7], query)
