"""The scripted server as vLLM in development mode, which has a sleep mode."""

from workers.scripted import wire
from workers.scripted.catalog import CONTEXT_LENGTH, error_reply, json_reply
from workers.scripted.http import Handler, HttpRequest, Reply
from workers.scripted.responses import ScriptedResponses


class ScriptedVllm:
    """The paths of vLLM; a success of sleep and wake-up has an empty body."""

    def __init__(self, responses: ScriptedResponses, _: Handler) -> None:
        """Awake."""
        self._catalog = responses.catalog
        self._level: int | None = None
        self.handlers: dict[str, Handler] = {
            "/v1/models": self._models,
            "/sleep": self._sleep,
            "/wake_up": self._wake,
            "/is_sleeping": lambda _: json_reply({"is_sleeping": self._level is not None}),
            **dict.fromkeys(("/api/", "/props", "/sdapi/"), _not_found),
        }

    def _models(self, _: HttpRequest) -> Reply:
        items = [
            {
                "id": name,
                "object": "model",
                "created": wire.CREATED,
                "owned_by": "vllm",
                "root": name,
                "parent": None,
                "max_model_len": CONTEXT_LENGTH,
            }
            for name in self._catalog.names
        ]
        return json_reply({"object": "list", "data": items})

    def _sleep(self, request: HttpRequest) -> Reply:
        self._level = int(request.query.get("level", "1"))
        return Reply(b"", content_type="text/plain")

    def _wake(self, _: HttpRequest) -> Reply:
        self._level = None
        return Reply(b"", content_type="text/plain")


def _not_found(request: HttpRequest) -> Reply:
    return error_reply(404, f"no {request.method} {request.path}", "not_found_error")
