"""A server of scripted models that implements the APIs of several servers on one port.

    python -m workers.scripted.server --port 11500

The name of a model sets its response and its faults (`script.py`). For tests, `GET /_seen` counts
the requests and how many streams are open, finished and aborted. `--imitate llamaswap`, for
example, adds the paths that only that server has, and lists models as it does.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
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
from workers.scripted.catalog import (
    CONTEXT_LENGTH,
    Catalog,
    PrefixCache,
    early_error,
    error_reply,
    json_reply,
)
from workers.scripted.gemini import ScriptedGemini
from workers.scripted.http import (
    Handler,
    HttpRequest,
    Reply,
    ScriptedConnection,
    ServerStats,
    StreamedReply,
)
from workers.scripted.images import ScriptedDiffusion, ScriptedOpenAIImages
from workers.scripted.llamacpp_router import ScriptedRouter
from workers.scripted.llamaswap import ScriptedLlamaSwap
from workers.scripted.lmstudio import ScriptedLmStudio
from workers.scripted.raw import ScriptedRaw
from workers.scripted.relevance import ScriptedRelevance
from workers.scripted.responses import NDJSON, SSE, ScriptedResponses
from workers.scripted.script import (
    EARLY_FAULTS,
    RERANK,
    Prompt,
    Script,
    Turn,
    generate,
    may_fail,
    turns_in,
    vectors,
)
from workers.scripted.vllm import ScriptedVllm

Imitation = Callable[[ScriptedResponses, Handler], dict[str, Handler]]

IMITATIONS: Final[dict[str, Imitation]] = {
    "llamacpp-router": lambda responses, fallback: ScriptedRouter(responses, fallback).handlers,
    "llamaswap": lambda responses, fallback: ScriptedLlamaSwap(responses, fallback).handlers,
    "infinity": lambda responses, fallback: ScriptedRelevance(responses, fallback).infinity,
    "tei": lambda responses, fallback: ScriptedRelevance(responses, fallback).tei,
    "lmstudio": lambda responses, fallback: ScriptedLmStudio(responses, fallback).handlers,
    "vllm": lambda responses, fallback: ScriptedVllm(responses, fallback).handlers,
}
"""The servers that the scripted server can imitate; their paths override the common ones."""

Route = Callable[[dict[str, Any]], Reply | StreamedReply | None]


class ScriptedServer:
    """Routes requests to handlers, and counts them in `seen`."""

    def __init__(self, imitate: str | None = None, models: Sequence[str] = ()) -> None:
        """`imitate` is a key of IMITATIONS; `models` are listed with the forms."""
        self.seen = ServerStats()
        self.url = ""
        self.prefixes = PrefixCache()
        self._catalog = Catalog()
        self._responses = ScriptedResponses(self._catalog)
        self.diffusion = ScriptedDiffusion(self._responses)
        for model in models:
            self._catalog.add(model)
        own = IMITATIONS[imitate](self._responses, self._fallback) if imitate else {}
        self._handlers: dict[str, Handler] = {
            **ScriptedRelevance(self._responses, self._fallback, self.seen.texts.append).handlers,
            **own,
            "/tokenize": self._fallback,  # Google's /token is a prefix of it
            **self.diffusion.handlers,
            **ScriptedGemini(self._responses).handlers,
            **ScriptedOpenAIImages(self._responses).handlers,
            **ScriptedRaw(self._responses).handlers,
        }
        self._routes: dict[str, Route] = {
            **self._catalog.routes,
            "POST /v1/chat/completions": self._openai_chat,
            "POST /v1/embeddings": self._openai_embed,
            "POST /apply-template": _apply_template,
            "POST /tokenize": _tokenize,
            "POST /api/chat": self._ollama_chat,
            "POST /api/embed": self._ollama_embed,
            "POST /api/pull": self._pull,
            "GET /_seen": lambda _: json_reply(self._counts()),
        }

    def _counts(self) -> dict[str, Any]:
        seen, prefixes = self.seen, self.prefixes
        return {
            "requests": seen.requests,
            "open": seen.open,
            "aborted": seen.aborted,
            "finished": seen.finished,
            "texts": list(seen.texts),
            "turns": prefixes.turns,
            "prefix_hits": prefixes.hits,
            "named_slots": prefixes.named,
        }

    def answer(self, request: HttpRequest) -> Reply | StreamedReply | None:
        """The response to a request; None drops the connection."""
        for prefix, surface in self._handlers.items():
            if request.path.startswith(prefix):
                return surface(request)
        return self._fallback(request)

    def _fallback(self, request: HttpRequest) -> Reply | StreamedReply | None:
        is_ollama = request.path.startswith("/api/")
        route = self._routes.get(f"{request.method} {request.path}")
        if route is None:
            return error_reply(
                404, f"no {request.method} {request.path}", "not_found_error", is_ollama=is_ollama
            )
        try:
            return route(from_json(request.body) if request.body else {})
        except ModelMissing as error:
            return error_reply(404, error.message, "model_not_found", is_ollama=is_ollama)
        except (FleetError, ValueError) as error:
            return error_reply(400, str(error), "invalid_request_error", is_ollama=is_ollama)

    def _openai_chat(self, body: dict[str, Any]) -> Reply | StreamedReply | None:
        script = self._chat_script(body)
        fault = self._responses.fault(script)
        if fault in EARLY_FAULTS:
            return early_error(fault, is_ollama=False)
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        turn = self._read(script, body, generate(script, _prompt(body, limit)))
        if not body.get("stream"):
            return json_reply(
                wire.openai_response(script, turn), delay_s=self._responses.delay_s(script)
            )
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        packets = wire.openai_packets(script, turn, with_usage=with_usage)
        # The first event has only the role, so N words are N + 1 events.
        return self._responses.flow(script, packets, fault, 1, SSE)

    def _read(self, script: Script, body: dict[str, Any], turn: Turn) -> Turn:
        """The turn with the tokens of its whole prompt, if the model keeps prompts in slots."""
        if not script.slots:
            return turn
        messages = [
            (str(each.get("role")), _text(each.get("content")))
            for each in body.get("messages") or ()
        ]
        read = self.prefixes.read(messages, body.get("id_slot"), script.slots)
        return replace(turn, prompt_tokens=read.tokens, cached_tokens=read.cached)

    def _ollama_chat(self, body: dict[str, Any]) -> Reply | StreamedReply | None:
        if body.get("messages") or body.get("keep_alive") != 0:
            script = self._chat_script(body)  # only an unload ignores the capabilities
        else:
            script = self._catalog.script(str(body.get("model")))
        if not body.get("messages"):
            is_unload = body.get("keep_alive") == 0
            self._catalog.set_warm(script.model, warm=not is_unload)
            last = wire.ollama_last(script, generate(script, Prompt()))
            reason = {"done_reason": "unload" if is_unload else "load"}
            return json_reply(last | reason, delay_s=0.0 if is_unload else script.load)
        fault = self._responses.fault(script)
        if fault in EARLY_FAULTS:
            return early_error(fault, is_ollama=True)
        turn = generate(script, _prompt(body, (body.get("options") or {}).get("num_predict")))
        if body.get("stream") is False:
            return json_reply(
                wire.ollama_response(script, turn), delay_s=self._responses.delay_s(script)
            )
        return self._responses.flow(script, wire.ollama_packets(script, turn), fault, 0, NDJSON)

    def _pull(self, body: dict[str, Any]) -> Reply | StreamedReply | None:
        model = str(body.get("model"))
        script = self._catalog.script(model, is_pull=True)
        fault = self._responses.fault(script)
        lines = self._catalog.pull(model, is_missing=fault == "missing")
        packets = tuple(wire.line(fields) for fields in lines)
        return self._responses.flow(
            script, packets, None if fault in EARLY_FAULTS else fault, 0, NDJSON
        )

    def _openai_embed(self, body: dict[str, Any]) -> Reply | StreamedReply | None:
        script, texts = self._embed_input(body)
        if script.form != "scripted-embed":
            return error_reply(501, "this model does not support embeddings", "not_supported_error")
        fault = self._responses.fault(script) if may_fail(script, texts) else None
        if fault is not None:
            return early_error(fault, is_ollama=False) if fault in EARLY_FAULTS else None
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

    def _ollama_embed(self, body: dict[str, Any]) -> Reply | StreamedReply | None:
        script, texts = self._embed_input(body)
        fault = self._responses.fault(script) if may_fail(script, texts) else None
        if fault is not None:
            return early_error(fault, is_ollama=True) if fault in EARLY_FAULTS else None
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
        if script.form in {"scripted-embed", RERANK}:
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
    imitate: str | None = None,
    models: Sequence[str] = (),
) -> AsyncIterator[ScriptedServer]:
    """Run a server in this event loop; with port 0 on a free port, which is part of its `url`."""
    server = ScriptedServer(imitate, models)
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
    parser.add_argument("--port", type=int, required=True, help="0 picks a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--imitate", choices=sorted(IMITATIONS), help="the server to imitate")
    parser.add_argument(
        "--model", action="append", default=[], help="a model to list with the forms"
    )
    given = parser.parse_args()

    async def run() -> None:
        async with serve(
            given.port, given.host, imitate=given.imitate, models=given.model
        ) as server:
            print(server.url, flush=True)  # noqa: T201 - output for the parent process
            await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        uvloop.run(run())


def _prompt(body: dict[str, Any], limit: Any) -> Prompt:
    messages = body.get("messages") or [{}]
    users = [message for message in messages if message.get("role") == "user"]
    last = messages[-1]
    tools = body.get("tools") or ()
    turns, turn = turns_in(
        (str(message.get("role")), _text(message.get("content"))) for message in messages
    )
    return Prompt(
        text=_text(users[-1].get("content")) if users else "",
        prefill=_text(last.get("content")) if last.get("role") == "assistant" else "",
        tools=tuple(tool["function"]["name"] for tool in tools),
        max_tokens=limit if isinstance(limit, int) and limit >= 0 else None,
        stop=_stops(body.get("stop") or (body.get("options") or {}).get("stop")),
        images=_images(users[-1]) if users else 0,
        turns=turns,
        turn=turn,
    )


def _apply_template(body: dict[str, Any]) -> Reply:
    """The prompt of a chat, as llama-server makes it."""
    texts = [_text(message.get("content")) for message in body.get("messages") or ()]
    return json_reply({"prompt": " ".join(texts)})


def _tokenize(body: dict[str, Any]) -> Reply:
    """A token for each word: of a text (llama-server) or of a chat (vLLM)."""
    texts = [str(body.get("content") or "")]
    texts += [_text(message.get("content")) for message in body.get("messages") or ()]
    tokens = list(range(len(" ".join(texts).split())))
    counted = {"count": len(tokens), "max_model_len": CONTEXT_LENGTH} if "messages" in body else {}
    return json_reply({"tokens": tokens, **counted})


def _stops(stop: Any) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return str(content or "")


def _images(message: dict[str, Any]) -> int:
    """How many: Ollama sends them beside the content, OpenAI as parts of it."""
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    beside = list(message.get("images") or ())
    return len(beside) + sum(1 for part in parts if part.get("type") == "image_url")


if __name__ == "__main__":
    main()
