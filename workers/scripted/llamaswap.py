"""The scripted server as llama-swap: starts models on demand, and lists the running ones.

`style=swap` imitates the option `sendLoadingState`: a cold model reports its loading in chunks.
"""

from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

from pydantic_core import from_json, to_json

from contract.errors import FleetError
from workers.scripted import wire
from workers.scripted.catalog import CONTEXT_LENGTH, json_reply
from workers.scripted.http import Handler, HttpRequest, Reply, StreamedReply, framed
from workers.scripted.responses import SSE, ScriptedResponses

_LOADING: Final = tuple(
    framed(wire.sse({"choices": [{"delta": {"reasoning_content": words}}]}))
    for words in ("━━━━━\n", "llama-swap loading model: scripted\n", "Done! (0.01s)\n")
)


class ScriptedLlamaSwap:
    """The paths of llama-swap."""

    def __init__(self, responses: ScriptedResponses, fallback: Handler) -> None:
        """`fallback` handles the chats, like the server behind llama-swap."""
        self._responses, self._catalog, self._fallback = responses, responses.catalog, fallback
        self.handlers: dict[str, Handler] = {
            "/v1/models": self._models,
            "/v1/chat/completions": self._chat,
            "/running": self._running,
            "/unload": self._unload,
            "/api/models/unload": self._unload,
            "/upstream/": self._upstream,
            "/api/": _not_found,
            "/props": _not_found,
        }

    def _models(self, _: HttpRequest) -> Reply:
        return json_reply({"object": "list", "data": [self._item(n) for n in self._catalog.names]})

    def _item(self, name: str) -> dict[str, Any]:
        is_warm = self._catalog.is_warm(name)
        facts: dict[str, Any] = {}
        if name == "scripted-tools":
            facts = {
                "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
                "capabilities": {"function_calling": True},
                "context_length": CONTEXT_LENGTH,
            }
        return {
            "id": name,
            "object": "model",
            "created": wire.CREATED,
            "owned_by": "llama-swap",
            "meta": {"llamaswap": {"type": "model", "aliases": [f"alias-of-{name}"]}},
            "status": {"value": "loaded" if is_warm else "unloaded"},
            **facts,
        }

    def _running(self, _: HttpRequest) -> Reply:
        return json_reply(
            {
                "running": [
                    {
                        "model": name,
                        "state": "ready",
                        "cmd": "llama-server --api-key s3cret",
                        "proxy": "http://127.0.0.1:5800",
                        "ttl": 0,
                        "name": "",
                        "description": "",
                    }
                    for name in sorted(self._catalog.warm)
                ]
            }
        )

    def _unload(self, request: HttpRequest) -> Reply:
        name = unquote(request.path.removeprefix("/unload").removeprefix("/api/models/unload"))[1:]
        if name and name not in self._catalog.names:
            return _error(404, "model not found")
        for warm in [name] if name else list(self._catalog.warm):
            self._catalog.set_warm(warm, warm=False)
        return Reply(b"OK", content_type="text/plain")

    def _upstream(self, request: HttpRequest) -> Reply:
        name = unquote(request.path.removeprefix("/upstream/")).removesuffix("/v1/models")
        try:
            script = self._catalog.script(name)
        except FleetError:
            return _error(404, "model not found")
        fault = self._responses.fault(script)
        if fault == "crash":
            return _error(500, "unspecific error: upstream command exited prematurely")
        delay_s = self._responses.delay_s(script)
        self._catalog.set_warm(name, warm=True)
        if fault == "missing":  # the started server has no such path
            return Reply(b'{"detail":"Not Found"}', 404)
        return Reply(b'{"data":[]}', delay_s=delay_s)

    def _chat(self, request: HttpRequest) -> Reply | StreamedReply | None:
        name = str(from_json(request.body).get("model"))
        is_cold, answer = not self._catalog.is_warm(name), self._fallback(request)
        reports_loading = is_cold and "style=swap" in name
        if isinstance(answer, Reply) and reports_loading and answer.status >= 500:  # noqa: PLR2004
            failure = framed(_error(answer.status, "unspecific error: it did not start").body)
            return StreamedReply(packets=(*_LOADING, failure), content_type=SSE)
        if isinstance(answer, StreamedReply):
            self._catalog.set_warm(name, warm=True)
            if reports_loading:
                return replace(answer, packets=(*_LOADING, *answer.packets), delay_s=0.0)
        return answer


def _error(status: int, message: str) -> Reply:
    error = {"message": message, "type": "server_error", "param": None, "code": "x"}
    return Reply(to_json({"src": "llama-swap", "error": error}), status)


def _not_found(request: HttpRequest) -> Reply:
    return Reply(f"404 page not found: {request.path}".encode(), 404, content_type="text/plain")
