"""Raw completions of the scripted server: OpenAI's /v1/completions, Ollama's /api/generate."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import from_json

from contract.errors import FleetError, ModelMissing
from workers.scripted import wire
from workers.scripted.catalog import early_error, error_reply
from workers.scripted.http import HttpRequest, Reply, StreamedReply
from workers.scripted.responses import NDJSON, SSE, ScriptedResponses
from workers.scripted.script import EARLY_FAULTS, Prompt, Script, Turn, generate

LOGPROB = -0.5


class ScriptedRaw:
    """Handles both paths; every response is streamed."""

    def __init__(self, responses: ScriptedResponses) -> None:
        """`responses` builds the responses."""
        self._responses = responses
        self.handlers: dict[str, Callable[[HttpRequest], Reply | StreamedReply | None]] = {
            "/v1/completions": self._answer,
            "/api/generate": self._answer,
        }

    def _answer(self, request: HttpRequest) -> Reply | StreamedReply | None:
        is_ollama = request.path.startswith("/api/")
        try:
            body = from_json(request.body)
            script = self._responses.catalog.script(str(body.get("model")))
            fault = self._responses.fault(script)
            if fault in EARLY_FAULTS:
                return early_error(fault, is_ollama=is_ollama)
            if is_ollama:
                turn = generate(
                    script, _prompt(body, (body.get("options") or {}).get("num_predict"))
                )
                return self._responses.flow(script, tuple(_lines(script, turn)), fault, 0, NDJSON)
            turn = generate(script, _prompt(body, body.get("max_tokens")))
            packets = tuple(_chunks(script, turn, with_logprobs=body.get("logprobs") is not None))
            return self._responses.flow(script, packets, fault, 0, SSE)
        except ModelMissing as error:
            return error_reply(404, error.message, "model_not_found", is_ollama=is_ollama)
        except (FleetError, ValueError) as error:
            return error_reply(400, str(error), "invalid_request_error", is_ollama=is_ollama)


def _prompt(body: dict[str, Any], limit: Any) -> Prompt:
    given = body.get("prompt")
    text = " ".join(map(str, given)) if isinstance(given, list) else str(given or "")
    has_limit = isinstance(limit, int) and limit >= 0
    return Prompt(text=text, is_raw=True, max_tokens=limit if has_limit else None)


def _chunks(script: Script, turn: Turn, *, with_logprobs: bool) -> Iterator[bytes]:
    head = {
        "id": "cmpl-scripted",
        "object": "text_completion",
        "created": wire.CREATED,
        "model": script.model,
    }
    for word in turn.content:
        logprobs = {
            "tokens": [word],
            "token_logprobs": [LOGPROB],
            "top_logprobs": [{word: LOGPROB}],
        }
        choice = {"index": 0, "text": word, "logprobs": logprobs if with_logprobs else None}
        yield wire.sse(head | {"choices": [choice | {"finish_reason": None}]})
    choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": turn.finish}
    yield wire.sse(head | {"choices": [choice]})
    yield wire.sse(head | {"choices": [], "usage": wire.usage(turn)})
    yield wire.DONE


def _lines(script: Script, turn: Turn) -> Iterator[bytes]:
    head = {"model": script.model, "created_at": wire.CREATED_AT}
    for word in turn.content:
        yield wire.line(head | {"response": word, "done": False})
    last = wire.ollama_last(script, turn)
    last.pop("message")
    yield wire.line(last | {"response": ""})
