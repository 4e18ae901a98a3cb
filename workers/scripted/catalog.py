"""Models of the scripted server, the responses about them, and error responses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from contract.errors import (
    ModelMissing,
)
from workers.scripted.backend import LAYERS, PULL_STEPS
from workers.scripted.http import Reply
from workers.scripted.script import FORMS, Script, parse
from workers.scripted.wire import CREATED, CREATED_AT, line, openai_error

VERSION: Final = "0.0.0-scripted"
CONTEXT_LENGTH: Final = 8192
SLOTS: Final = 4
_PAGE: Final = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head></html>"
_PROPS: Final = {
    "default_generation_settings": {"n_ctx": CONTEXT_LENGTH},
    "total_slots": SLOTS,
    "modalities": {"vision": False, "audio": False},
    "chat_template_caps": {"supports_tools": True, "supports_tool_calls": True},
    "build_info": VERSION,
    "is_sleeping": False,
}
_EARLY: Final[dict[str, tuple[int, str, str, str]]] = {
    "body": (200, "scripted error with status 200", "server_error", ""),
    "busy": (
        429,
        "rate limit reached",
        "rate_limit_exceeded",
        "server busy, please try again.  maximum pending requests exceeded",
    ),
    "loading": (503, "Loading model", "unavailable_error", ""),
    "missing": (404, "model 'x' not found", "model_not_found", ""),
    "context": (
        400,
        "request (9 tokens) exceeds the available context size (8 tokens), try increasing it",
        "exceed_context_size_error",
        "the prompt is longer than the context length currently available to the model",
    ),
    "auth": (401, "Invalid API Key", "authentication_error", ""),
    "crash": (500, "scripted crash", "server_error", "model runner has unexpectedly stopped"),
}
"""By fault: status, OpenAI's message and type, and Ollama's message if it differs."""


class ReadPrompt(NamedTuple):
    """How a prompt was read, in tokens."""

    tokens: int
    cached: int


@dataclass(slots=True)
class PrefixCache:
    """The prompts that a server keeps in its slots, as llama-server does.

    A model with `slots=N` keeps the last prompt of each slot. A request may name its slot
    (`id_slot`); otherwise it gets the one with the longest common prefix, or an unused one, or the
    one that was used longest ago. `GET /_seen` returns the counts.
    """

    turns: int = 0
    """Requests that continue a conversation."""
    hits: int = 0
    """Those of which every message before the last answer was cached."""
    named: int = 0
    """Requests that named their slot."""
    _prompts: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Messages by slot; the one that was used longest ago is first."""

    def read(self, messages: Sequence[tuple[str, str]], slot: Any, slots: int) -> ReadPrompt:
        """Read a prompt, given as roles and texts, into one of so many slots."""
        prompt = tuple(f"{role} {text}" for role, text in messages)
        self.named += isinstance(slot, int)
        chosen = slot if isinstance(slot, int) else self._chosen(prompt, slots)
        common = _common(prompt, self._prompts.pop(chosen, ()))
        self._prompts[chosen] = prompt
        answers = [at for at, (role, _) in enumerate(messages) if role == "assistant"]
        if answers:
            self.turns += 1
            self.hits += common >= answers[-1]
        return ReadPrompt(_tokens(messages), _tokens(messages[:common]))

    def _chosen(self, prompt: tuple[str, ...], slots: int) -> int:
        best = max(self._prompts, key=lambda at: _common(prompt, self._prompts[at]), default=None)
        if best is not None and _common(prompt, self._prompts[best]):
            return best
        unused = set(range(slots)) - self._prompts.keys()
        return min(unused) if unused else next(iter(self._prompts))


class Catalog:
    """The models and their load state."""

    def __init__(self) -> None:
        """The forms, all of them cold."""
        self._models = {form: form for form in FORMS}
        self._warm: set[str] = set()
        self.routes: dict[str, Callable[[dict[str, Any]], Reply]] = {
            "GET /": lambda _: Reply(b"Ollama is running", content_type="text/plain"),
            "GET /health": lambda _: json_reply({"status": "ok"}),
            "GET /version": lambda _: json_reply({"version": VERSION}),
            "GET /api/version": lambda _: json_reply({"version": VERSION}),
            "GET /props": lambda _: json_reply(_PROPS),
            "GET /v1/models": lambda _: json_reply(
                {"object": "list", "data": [_item(name) for name in self._models]}
            ),
            "GET /api/tags": lambda _: json_reply(
                {"models": [_tag(name) for name in self._models]}
            ),
            "GET /api/ps": lambda _: json_reply(
                {"models": [_tag(name) for name in sorted(self._warm)]}
            ),
            "POST /api/show": self._show,
            "POST /api/create": self._create,
            "POST /api/copy": self._copy,
            "DELETE /api/delete": self._delete,
        }

    @property
    def names(self) -> tuple[str, ...]:
        """All models."""
        return tuple(self._models)

    @property
    def warm(self) -> frozenset[str]:
        """The models in memory."""
        return frozenset(self._warm)

    def add(self, model: str) -> None:
        """Add a model; its name is its script, or the story if it is none."""
        self._models[model] = model if model.startswith(FORMS) else FORMS[0]

    def remove(self, model: str) -> None:
        """Remove a model."""
        self._models.pop(model, None)
        self._warm.discard(model)

    def script(self, model: str, *, is_pull: bool = False) -> Script:
        """The script of a model; a pulled or copied one has the script of its source.

        Raises ModelMissing, and InvalidRequest for an unknown parameter.
        """
        source = self._models.get(model)
        if source is None and is_pull and not model.startswith(FORMS):
            source = FORMS[0]
        return replace(parse(source or model), model=model)

    def is_warm(self, model: str) -> bool:
        """Whether a model is in memory."""
        return model in self._warm

    def set_warm(self, model: str, *, warm: bool) -> None:
        """Mark a model as loaded or unloaded."""
        (self._warm.add if warm else self._warm.discard)(model)

    def pull(self, model: str, *, is_missing: bool) -> list[dict[str, Any]]:
        """Add a model, and return the lines of its pull; `completed` is omitted while it is 0."""
        lines: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        if is_missing:
            return [*lines, {"error": "pull model manifest: file does not exist"}]
        for digest, total in LAYERS:
            status = f"pulling {digest[7:19]}"
            lines.append({"status": status, "digest": digest, "total": total})
            lines += [
                {
                    "status": status,
                    "digest": digest,
                    "total": total,
                    "completed": total * step // PULL_STEPS,
                }
                for step in range(1, PULL_STEPS + 1)
            ]
        self._models.setdefault(model, self.script(model, is_pull=True).form)
        endings = ("verifying sha256 digest", "writing manifest", "success")
        return lines + [{"status": status} for status in endings]

    def _show(self, body: dict[str, Any]) -> Reply:
        script = self.script(str(body.get("model") or body.get("name")))
        is_embedding = script.form == "scripted-embed"
        kinds = {
            "scripted-embed": ["embedding"],
            "scripted-image": ["image"],
            "scripted-rerank": ["rerank"],
            "scripted-echo": ["completion", "vision"],
            "scripted-tools": ["completion", "tools"],
            "scripted-think": ["completion", "thinking"],
        }
        info: dict[str, Any] = {
            "general.architecture": "scripted",
            "scripted.context_length": CONTEXT_LENGTH,
        }
        if is_embedding:
            info["scripted.embedding_length"] = float(script.dim)
        return json_reply(
            {
                "license": "none",
                "modelfile": f"FROM {script.model}",
                "template": "{{ .Prompt }}",
                "details": {"family": "scripted", "format": "script"},
                "model_info": info,
                "capabilities": kinds.get(script.form, ["completion"]),
                "modified_at": CREATED_AT,
            }
        )

    def _create(self, body: dict[str, Any]) -> Reply:
        self._models[str(body["model"])] = self._known(str(body.get("from")))
        lines = [{"status": status} for status in ("writing manifest", "success")]
        return Reply(b"".join(map(line, lines)), content_type="application/x-ndjson")

    def _copy(self, body: dict[str, Any]) -> Reply:
        self._models[str(body["destination"])] = self._known(str(body.get("source")))
        return Reply(b"")

    def _delete(self, body: dict[str, Any]) -> Reply:
        model = str(body.get("model"))
        self._known(model)
        del self._models[model]
        self._warm.discard(model)
        return Reply(b"")

    def _known(self, model: str) -> str:
        if model not in self._models:
            raise ModelMissing(f"model '{model}' not found")
        return self._models[model]


def json_reply(value: Any, *, delay_s: float = 0.0) -> Reply:
    """A response of status 200; `value` is encoded as JSON."""
    return Reply(to_json(value), delay_s=delay_s)


def error_reply(status: int, message: str, kind: str, *, is_ollama: bool = False) -> Reply:
    """An error response in the format of OpenAI or Ollama."""
    if is_ollama:
        return Reply(to_json({"error": message}), status)
    return Reply(openai_error(status, message, kind), status)


def early_error(fault: str | None, *, is_ollama: bool) -> Reply:
    """The response of a fault of EARLY_FAULTS."""
    if fault not in _EARLY:
        return Reply(_PAGE, content_type="text/html")
    status, message, kind, ollama_message = _EARLY[fault]
    shown = (ollama_message or message) if is_ollama else message
    reply = error_reply(status, shown, kind, is_ollama=is_ollama)
    return replace(reply, headers=(("retry-after", "2"),)) if fault == "busy" else reply


def _tag(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": CREATED_AT,
        "size": 1_000_000,
        "digest": name.encode().hex(),
        "details": {"format": "script", "family": "scripted", "families": None},
    }


def _item(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": "scripted",
        "max_model_len": CONTEXT_LENGTH,
    }


def _common(prompt: tuple[str, ...], kept: tuple[str, ...]) -> int:
    """How many messages both begin with."""
    return next(
        (at for at, (one, other) in enumerate(zip(prompt, kept, strict=False)) if one != other),
        min(len(prompt), len(kept)),
    )


def _tokens(messages: Sequence[tuple[str, str]]) -> int:
    return sum(len(text.split()) for _, text in messages)
