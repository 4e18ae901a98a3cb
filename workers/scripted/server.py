"""A server of scripted models that speaks the wire formats of several servers on one port.

    python -m workers.scripted.server --port 11500

What a model says and how it misbehaves stands in its name (`script.py`). `GET /_seen` tells how
many streams are open, finished and aborted; it is for tests that must know what a server sees.
With `--manner llamaswap` and the like it has that server's own paths, too, and its list of models.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from weakref import WeakSet

import uvloop
from pydantic_core import from_json

from contract.errors import (
    FleetError,
    ModelMissing,
    NotSupported,
)
from workers.scripted import wire
from workers.scripted.catalog import Catalog, early, error_reply, json_reply
from workers.scripted.gemini import ScriptedGemini
from workers.scripted.http import Ask, Flow, Handler, Reply, ScriptedConnection, SeenRequest
from workers.scripted.images import Gallery, ScriptedOpenAIImages
from workers.scripted.llamacpp_router import ScriptedRouter
from workers.scripted.llamaswap import ScriptedLlamaSwap
from workers.scripted.lmstudio import ScriptedLmStudio
from workers.scripted.raw import ScriptedRaw
from workers.scripted.responses import NDJSON, SSE, ScriptedResponses
from workers.scripted.script import EARLY, Prompt, Script, disagrees, play, vectors
from workers.scripted.vllm import ScriptedVllm

Manner = Callable[[ScriptedResponses, Handler], dict[str, Handler]]

MANNERS: Final[dict[str, Manner]] = {
    "llamacpp-router": lambda responses, usual: ScriptedRouter(responses, usual).surfaces,
    "llamaswap": lambda responses, usual: ScriptedLlamaSwap(responses, usual).surfaces,
    "lmstudio": lambda responses, usual: ScriptedLmStudio(responses, usual).surfaces,
    "vllm": lambda responses, usual: ScriptedVllm(responses, usual).surfaces,
}
"""The servers that the scripted server can imitate; their paths override the common ones."""


Route = Callable[[dict[str, Any]], Reply | Flow | None]
Surface = Callable[[Ask], Reply | Flow | None]
"""Answers whatever its prefix of a path is asked, errors included."""


class ScriptedServer:
    """Answers requests; keeps what was seen."""

    def __init__(self, manner: str | None = None, models: Sequence[str] = ()) -> None:
        """Nothing seen; `manner` is whom to pretend to be, `models` are listed beside the forms."""
        self.seen = SeenRequest()
        self.url = ""
        self._catalog = Catalog()
        self._responses = ScriptedResponses(self._catalog)
        self.gallery = Gallery(self._responses)
        for model in models:
            self._catalog.add(model)
        own = MANNERS[manner](self._responses, self._usual) if manner else {}
        self._surfaces: dict[str, Surface] = {
            **own,
            **self.gallery.surfaces,
            **ScriptedGemini(self._responses).surfaces,
            **ScriptedOpenAIImages(self._responses).surfaces,
            **ScriptedRaw(self._responses).surfaces,
        }
        self._routes: dict[str, Route] = {
            **self._catalog.routes,
            "POST /v1/chat/completions": self._openai_chat,
            "POST /v1/embeddings": self._openai_embed,
            "POST /api/chat": self._ollama_chat,
            "POST /api/embed": self._ollama_embed,
            "POST /api/pull": self._pull,
            "GET /_seen": lambda _: json_reply(
                {
                    "requests": self.seen.requests,
                    "open": self.seen.open,
                    "aborted": self.seen.aborted,
                    "finished": self.seen.finished,
                    "texts": list(self.seen.texts),
                }
            ),
        }

    def answer(self, ask: Ask) -> Reply | Flow | None:
        """The answer to a request; None drops the connection."""
        for prefix, surface in self._surfaces.items():
            if ask.path.startswith(prefix):
                return surface(ask)
        return self._usual(ask)

    def _usual(self, ask: Ask) -> Reply | Flow | None:
        is_ollama = ask.path.startswith("/api/")
        route = self._routes.get(f"{ask.method} {ask.path}")
        if route is None:
            return error_reply(
                404, f"no {ask.method} {ask.path}", "not_found_error", is_ollama=is_ollama
            )
        try:
            return route(from_json(ask.body) if ask.body else {})
        except ModelMissing as error:
            return error_reply(404, error.message, "model_not_found", is_ollama=is_ollama)
        except (FleetError, ValueError) as error:
            return error_reply(400, str(error), "invalid_request_error", is_ollama=is_ollama)

    def _openai_chat(self, body: dict[str, Any]) -> Reply | Flow | None:
        script = self._chat_script(body)
        fault = self._responses.fault(script)
        if fault in EARLY:
            return early(fault, is_ollama=False)
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        turn = play(script, _prompt(body, limit))
        if not body.get("stream"):
            return json_reply(
                wire.openai_whole(script, turn), delay_s=self._responses.delay_s(script)
            )
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        packets = wire.openai_packets(script, turn, with_usage=with_usage)
        # The first event only names the role, so N words are N + 1 events.
        return self._responses.flow(script, packets, fault, 1, SSE)

    def _ollama_chat(self, body: dict[str, Any]) -> Reply | Flow | None:
        if body.get("messages") or body.get("keep_alive") != 0:
            script = self._chat_script(body)  # only an unload does not look at capabilities
        else:
            script = self._catalog.script(str(body.get("model")))
        if not body.get("messages"):
            is_unload = body.get("keep_alive") == 0
            self._catalog.set_warm(script.model, warm=not is_unload)
            last = wire.ollama_last(script, play(script, Prompt()))
            reason = {"done_reason": "unload" if is_unload else "load"}
            return json_reply(last | reason, delay_s=0.0 if is_unload else script.load)
        fault = self._responses.fault(script)
        if fault in EARLY:
            return early(fault, is_ollama=True)
        turn = play(script, _prompt(body, (body.get("options") or {}).get("num_predict")))
        if body.get("stream") is False:
            return json_reply(
                wire.ollama_whole(script, turn), delay_s=self._responses.delay_s(script)
            )
        return self._responses.flow(script, wire.ollama_packets(script, turn), fault, 0, NDJSON)

    def _pull(self, body: dict[str, Any]) -> Reply | Flow | None:
        model = str(body.get("model"))
        script = self._catalog.script(model, is_pull=True)
        fault = self._responses.fault(script)
        lines = self._catalog.pull(model, is_missing=fault == "missing")
        packets = tuple(wire.line(fields) for fields in lines)
        return self._responses.flow(script, packets, None if fault in EARLY else fault, 0, NDJSON)

    def _openai_embed(self, body: dict[str, Any]) -> Reply | Flow | None:
        script, texts = self._embed_input(body)
        if script.form != "scripted-embed":
            return error_reply(501, "this model does not support embeddings", "not_supported_error")
        fault = self._responses.fault(script) if disagrees(script, texts) else None
        if fault is not None:
            return early(fault, is_ollama=False) if fault in EARLY else None
        as_base64 = body.get("encoding_format") == "base64" and "float" not in script.wire
        width = body.get("dimensions") or script.dim
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": wire.embedding(row, as_base64=as_base64),
            }
            for index, row in enumerate(vectors(script, texts, width))
        ]
        data = data[:-1] if "short" in script.wire else data
        data = data[::-1] if "unordered" in script.wire else data
        tokens = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json_reply(
            {"object": "list", "data": data, "model": script.model, "usage": usage},
            delay_s=self._responses.delay_s(script),
        )

    def _ollama_embed(self, body: dict[str, Any]) -> Reply | Flow | None:
        script, texts = self._embed_input(body)
        fault = self._responses.fault(script) if disagrees(script, texts) else None
        if fault is not None:
            return early(fault, is_ollama=True) if fault in EARLY else None
        rows = vectors(script, texts, body.get("dimensions") or script.dim)
        rows = rows[:-1] if "short" in script.wire else rows
        return json_reply(
            {
                "model": script.model,
                "embeddings": rows,
                "total_duration": 3_000_000,
                "load_duration": 1_000_000,
                "prompt_eval_count": sum(len(text.split()) for text in texts),
            },
            delay_s=self._responses.delay_s(script),
        )

    def _chat_script(self, body: dict[str, Any]) -> Script:
        script = self._catalog.script(str(body.get("model")))
        if script.form == "scripted-embed":
            raise NotSupported(f'"{script.model}" does not support chat')
        return script

    def _embed_input(self, body: dict[str, Any]) -> tuple[Script, list[str]]:
        texts = body.get("input")
        listed = [texts] if isinstance(texts, str) else list(texts or ())
        self.seen.texts.append(len(listed))
        return self._catalog.script(str(body.get("model"))), [str(text) for text in listed]


@asynccontextmanager
async def serve(
    port: int = 0,
    host: str = "127.0.0.1",
    *,
    manner: str | None = None,
    models: Sequence[str] = (),
) -> AsyncIterator[ScriptedServer]:
    """Run a server inside this loop; port 0 takes a free one, and `url` tells which."""
    server = ScriptedServer(manner, models)
    loop = asyncio.get_running_loop()
    connections: WeakSet[ScriptedConnection] = WeakSet()

    def connect() -> ScriptedConnection:
        connection = ScriptedConnection(server.answer, server.seen)
        connections.add(connection)
        return connection

    listener = await loop.create_server(connect, host, port, backlog=4096)
    server.url = f"http://{host}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for connection in list(connections):
            connection.abort()


def main() -> None:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--manner", choices=sorted(MANNERS), help="whom to pretend to be")
    parser.add_argument("--model", action="append", default=[], help="to list beside the forms")
    given = parser.parse_args()

    async def run() -> None:
        async with serve(given.port, given.host, manner=given.manner, models=given.model) as server:
            print(server.url, flush=True)  # noqa: T201 - data for whoever started it
            await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        uvloop.run(run())


def _prompt(body: dict[str, Any], limit: Any) -> Prompt:
    messages = body.get("messages") or [{}]
    users = [message for message in messages if message.get("role") == "user"]
    last = messages[-1]
    tools = body.get("tools") or ()
    return Prompt(
        text=_text(users[-1].get("content")) if users else "",
        said=_text(last.get("content")) if last.get("role") == "assistant" else "",
        tools=tuple(tool["function"]["name"] for tool in tools),
        max_tokens=limit if isinstance(limit, int) and limit >= 0 else None,
        stop=_stops(body.get("stop") or (body.get("options") or {}).get("stop")),
        images=_images(users[-1]) if users else 0,
    )


def _stops(stop: Any) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return str(content or "")


def _images(message: dict[str, Any]) -> int:
    """Ollama has them beside the content, OpenAI among its parts."""
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    beside = list(message.get("images") or ())
    return len(beside) + sum(1 for part in parts if part.get("type") == "image_url")


if __name__ == "__main__":
    main()
