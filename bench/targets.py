"""Who is measured: the backend itself, the fleet before it, LiteLLM before it. One chat each."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from pydantic_core import from_json

from bench.wire import Answer, Line, get, post
from workers.scripted.script import Prompt, generate, parse

PROMPT = "Tell me a story."
PACED = "scripted-story:chunks=64,rate=50,first=0.05"
PACED_CHUNKS = 64
PACED_SHORT = "scripted-story:chunks=4,rate=50,first=0.05"


def model(chunks: int, rate: float = 0.0) -> str:
    """The scripted model that says so many words, so many a second (0: as fast as can be)."""
    return f"scripted-story:chunks={chunks}" + (f",rate={rate:g}" if rate else "")


def said_by(name: str) -> str:
    """What a scripted model says, word for word."""
    return "".join(generate(parse(name), Prompt(text=PROMPT)).content)


class Heard(NamedTuple):
    """A chat as its caller saw it."""

    began: float
    """When the caller asked, by the performance counter."""
    answer: Answer

    @property
    def first_s(self) -> float:
        """From the question to the first word."""
        return self.answer.first_word_at - self.began


class Target(Protocol):
    """Something that answers chats on a port of this machine."""

    name: str
    port: int

    async def chat(self, line: Line, model: str) -> Heard:
        """Have one chat, to its end."""
        ...

    def fault(self, heard: Heard, expected: str) -> str | None:
        """What is wrong with what was heard, if anything is."""
        ...


class OpenAiShaped:
    """The backend itself, or a proxy with the same face."""

    def __init__(
        self,
        name: str,
        port: int,
        headers: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Talk to `port`; `aliases` are its own names for models."""
        self.name = name
        self.port = port
        self._headers = headers
        self._aliases = aliases or {}

    async def chat(self, line: Line, model: str) -> Heard:
        """POST /v1/chat/completions, streamed."""
        body = {
            "model": self._aliases.get(model, model),
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer = await line.ask(post("/v1/chat/completions", body, self._headers), b'"content":"')
        return Heard(answer.began, answer)

    def fault(self, heard: Heard, expected: str) -> str | None:
        """The text must be whole, and `[DONE]` the end."""
        events = [line[6:] for line in heard.answer.body.split(b"\n") if line.startswith(b"data: ")]
        if not events or events[-1].strip() != b"[DONE]":
            return "it ended without [DONE]"
        choices = (choice for event in events[:-1] for choice in from_json(event)["choices"])
        text = [choice["delta"].get("content") or "" for choice in choices]
        return None if "".join(text) == expected else "the text is another"


class Fleet:
    """The fleet: a job is put on a queue, and followed on the same connection."""

    def __init__(self, port: int, backend: str, redis_url: str = "") -> None:
        """Talk to the shim on `port`; jobs are for `backend`."""
        self.name = "fleet"
        self.redis_url = redis_url
        self.port = port
        self._backend = backend

    def request(self, model: str) -> bytes:
        """POST /api/v1/jobs/chat."""
        body = {
            "backend": self._backend,
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
        }
        return post("/api/v1/jobs/chat", body)

    async def chat(self, line: Line, model: str) -> Heard:
        """Enqueue, then follow as NDJSON."""
        accepted = await line.ask(self.request(model))
        url = str(from_json(accepted.body)["events_url"])
        answer = await line.ask(get(url, "application/x-ndjson"), b'"type":"delta"')
        return Heard(accepted.began, answer)

    def fault(self, heard: Heard, expected: str) -> str | None:
        """Ids must rise, the text must be whole, and one `done` the end.

        A `reset` takes back what was said before, as every follower reads it (contract/result.py).
        """
        text: list[str] = []
        last, kind = (0, 0), ""
        for line in heard.answer.body.splitlines():
            event = from_json(line)
            kind = event["type"]
            if (id := event.get("id")) is not None:
                attempt, _, seq = id.partition("-")
                if (int(attempt), int(seq)) <= last:
                    return f"{id} came after {last}"
                last = (int(attempt), int(seq))
            if kind == "reset":
                text.clear()
            elif kind == "delta":
                text.append(event.get("content") or "")
        if kind != "done":
            return f"it ended with {kind}"
        return None if "".join(text) == expected else "the text is another"
