"""A chat that is answered with status 200 and a JSON array in place of a stream, over real HTTP.

Subjects: workers/backends/http/client.py, workers/backends/http/error_table.py.
"""

import pytest
from support.answers import answering

from contract import errors
from contract.chat import ChatRequest, Message
from contract.errors import BackendError
from workers.backend_registry import build
from workers.backends.dsn import parse
from workers.backends.protocols import Chat
from workers.scripted.http import Reply

ASK = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))


@pytest.mark.parametrize("media", ["application/json", "text/event-stream", "text/plain"])
@pytest.mark.parametrize(
    ("body", "name", "words"),
    [
        (b'[{"error":{"code":503}}]', "BackendBusy", "503"),
        (b'[{"error":{"code":503,"message":"overloaded"}}]', "BackendBusy", "overloaded"),
        (b'[{"error":{"code":500,"message":"boom"}}]', "ServerFault", "boom"),
        (b"[1]", "BadAnswer", "it is a list"),
        (b"null", "BadAnswer", "it is null"),
    ],
)
@pytest.mark.parametrize("type", ["vllm", "lmstudio", "ollama"])
async def test_it_is_an_error_of_the_right_class(
    type: str, body: bytes, name: str, words: str, media: str
) -> None:
    async with answering(m=lambda _: Reply(body, 200, media)) as server:
        backend = build(parse("LLM_BOX", f"{type}://127.0.0.1:{server.port}"))
        assert isinstance(backend, Chat)
        with pytest.raises(BackendError, match=words) as caught:
            async for _ in backend.chat(ASK):
                pass
        await backend.aclose()

    assert caught.type is getattr(errors, name)
