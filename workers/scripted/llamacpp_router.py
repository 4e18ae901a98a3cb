"""The scripted server as a llama-server in router mode: loads, unloads and downloads take time.

GET /models/sse streams the events, as in the real server.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, overload

from pydantic_core import from_json
from typing_extensions import override

from contract.errors import FleetError
from workers.scripted import wire
from workers.scripted.backend import LAYERS, PULL_STEPS
from workers.scripted.catalog import CONTEXT_LENGTH, VERSION, error_reply, json_reply
from workers.scripted.http import Handler, HttpRequest, Reply, StreamedReply, framed
from workers.scripted.responses import SSE, ScriptedResponses
from workers.scripted.script import Script

TICK_S: Final = 0.005
_QUIET: Final = framed(b":\n\n")
_ENDLESS: Final = 1 << 40


class RouterEvents(Sequence[bytes]):
    """The endless packets of one event stream: a comment when no event is pending."""

    def __init__(self) -> None:
        """No events."""
        self.pending: deque[bytes] = deque()

    @override
    def __len__(self) -> int:
        return _ENDLESS

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    @override
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        packet = self.pending.popleft() if self.pending else _QUIET
        return packet if isinstance(index, int) else (packet,)


class ScriptedRouter:
    """The paths of the router; a chat loads its model."""

    def __init__(self, responses: ScriptedResponses, fallback: Handler) -> None:
        """No model is loaded; `fallback` handles the chats."""
        self._responses, self._catalog, self._fallback = responses, responses.catalog, fallback
        self._busy: dict[str, str] = {}
        self._subscribers: list[RouterEvents] = []
        self.handlers: dict[str, Handler] = {
            "/models/sse": self._events,
            "/models/load": self._load,
            "/models/unload": self._unload,
            "/models": self._by_method,
            "/v1/models": self._list,
            "/v1/chat/completions": self._chat,
            "/props": self._props,
            **dict.fromkeys(("/api/", "/sdapi/"), _not_found),
        }

    def _by_method(self, request: HttpRequest) -> Reply:
        match request.method:
            case "POST":
                return self._download(str(from_json(request.body)["model"]))
            case "DELETE":
                return self._delete(request.query.get("model", ""))
            case _:
                return self._list(request)

    def _events(self, _: HttpRequest) -> StreamedReply:
        subscriber = RouterEvents()
        self._subscribers.append(subscriber)
        return StreamedReply(packets=subscriber, content_type=SSE, gap_s=TICK_S)

    def _publish(self, model: str, event: str, data: dict[str, Any]) -> None:
        for subscriber in self._subscribers:
            subscriber.pending.append(
                framed(wire.sse({"model": model, "event": event, "data": data}))
            )

    def _list(self, _: HttpRequest) -> Reply:
        names = [*self._catalog.names, *(n for n in self._busy if n not in self._catalog.names)]
        return json_reply({"object": "list", "data": [self._item(name) for name in names]})

    def _item(self, name: str) -> dict[str, Any]:
        flags = {"scripted-embed": ["--embeddings"], "scripted-rerank": ["--reranking"]}
        state = self._busy.get(name) or ("loaded" if self._catalog.is_warm(name) else "unloaded")
        args = ["llama-server", "--api-key", "s3cret", *flags.get(name.partition(":")[0], ())]
        meta = {"meta": {"n_ctx": CONTEXT_LENGTH, "n_embd": 64, "size": 1_000_000}}
        return {
            "id": name,
            "aliases": [],
            "object": "model",
            "owned_by": "llamacpp",
            "status": {"value": state, "args": args},
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "source": "cache",
            "can_remove": not name.startswith("scripted-"),
            **(meta if state == "loaded" else {}),
        }

    def _props(self, request: HttpRequest) -> Reply | StreamedReply | None:
        if request.query.get("model"):
            return self._fallback(request)
        return json_reply({"role": "router", "max_instances": 4, "build_info": VERSION})

    def _chat(self, request: HttpRequest) -> Reply | StreamedReply | None:
        answer = self._fallback(request)
        if isinstance(answer, StreamedReply):
            self._catalog.set_warm(str(from_json(request.body).get("model")), warm=True)
        return answer

    def _load(self, request: HttpRequest) -> Reply:
        model = str(from_json(request.body)["model"])
        if model not in self._catalog.names:
            return error_reply(404, "model is not found", "not_found_error")
        if self._catalog.is_warm(model) or model in self._busy:
            return error_reply(400, "model is already running", "invalid_request_error")
        script = self._catalog.script(model)
        self._busy[model] = "loading"
        self._publish(model, "model_status", {"status": "loading"})
        for value in (0.5, 1.0):
            progress = {"stages": ["text_model", "mmproj_model"], "current": "text_model"}
            data = {"status": "loading", "progress": progress | {"value": value}}
            self._publish(model, "status_change", data)
        self._call_later(script.load, lambda: self._end_load(script))
        return json_reply({"success": True})

    def _end_load(self, script: Script) -> None:
        if self._busy.pop(script.model, None) is None:
            return
        if self._responses.fault(script):
            data = {"status": "unloaded", "exit_code": 1}
        else:
            self._catalog.set_warm(script.model, warm=True)
            data = {"status": "loaded", "info": {}}
        self._publish(script.model, "status_change", data)

    def _unload(self, request: HttpRequest) -> Reply:
        model = str(from_json(request.body)["model"])
        if not self._catalog.is_warm(model) and model not in self._busy:
            return error_reply(400, "model is not running", "invalid_request_error")
        self._busy.pop(model, None)
        self._catalog.set_warm(model, warm=False)
        self._publish(model, "status_change", {"status": "unloaded", "exit_code": 0})
        return json_reply({"success": True})

    def _download(self, model: str) -> Reply:
        if model in self._catalog.names or model in self._busy:
            return error_reply(400, f"model '{model}' already exists", "invalid_request_error")
        try:
            script = self._catalog.script(model, is_pull=True)
        except FleetError:
            script = None
        if script is None or script.fail == "missing":
            text = "model validation failed, unable to download"
            return error_reply(400, text, "invalid_request_error")
        self._busy[model] = "downloading"
        self._call_later(0.0, lambda: self._step(script, 1))
        return json_reply({"success": True})

    def _step(self, script: Script, step: int) -> None:
        model = script.model
        if model not in self._busy:
            return  # POST /models/unload also stops a download
        if step > PULL_STEPS or (script.fail == "crash" and step > script.after):
            del self._busy[model]
            if script.fail != "crash":
                self._catalog.add(model)
            ending = "download_failed" if script.fail == "crash" else "download_finished"
            self._publish(model, ending, {})
            return
        files = {
            f"https://files.test/{digest[7:9]}.gguf": {
                "done": total * step // PULL_STEPS,
                "total": total,
            }
            for digest, total in LAYERS
        }
        self._publish(model, "download_progress", {"progress": files})
        gap_s = 1 / script.rate if script.rate else 0.0
        self._call_later(gap_s, lambda: self._step(script, step + 1))

    def _delete(self, model: str) -> Reply:
        if model not in self._catalog.names:
            return error_reply(500, f"model name={model} is not found", "server_error")
        self._catalog.remove(model)
        return json_reply({"success": True})

    def _call_later(self, delay_s: float, what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, what)


def _not_found(request: HttpRequest) -> Reply:
    return error_reply(404, f"no {request.method} {request.path}", "not_found_error")
