"""What a llama-server in router mode tells of its models: pure readers of its list and its events.

Sources: llama.cpp `tools/server/server-models.cpp` and `README.md` (router mode).
"""

from collections.abc import Callable
from typing import Any, Final

from pydantic_core import from_json

from contract.events import Progress
from contract.roster import ModelReport, ModelTrait

READY: Final = frozenset({"loaded", "sleeping"})
"""A sleeping model wakes up by itself at its next request."""
BUSY: Final = READY | {"loading"}
"""States that POST /models/unload ends, and POST /models/load refuses."""
_EMBEDS: Final = frozenset({"--embeddings", "--embedding"})


def state(item: dict[str, Any]) -> str:
    """`unloaded`, `loading`, `loaded`, `sleeping`, `downloading` or `downloaded`."""
    return str((item.get("status") or {}).get("value") or "")


def event(raw: bytes) -> dict[str, Any]:
    """What an event of GET /models/sse says; empty if it is none."""
    try:
        said = from_json(raw)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def has_downloaded(model: str, items: list[dict[str, Any]]) -> bool:
    """Whether the list has what was asked for, with the quantization that the router chose."""
    wanted = model.casefold()
    names = [
        str(name).casefold() for it in items for name in (it["id"], *(it.get("aliases") or ()))
    ]
    return any(name == wanted or name.startswith(f"{wanted}:") for name in names)


def report(item: dict[str, Any], props: dict[str, Any]) -> ModelReport:
    """A model of GET /models; `props` are those of its own server, which it has once it ran.

    The command line tells whether it embeds, and is never repeated: it may hold a key.
    """
    meta, is_ready = item.get("meta") or {}, state(item) in READY
    embeds = not _EMBEDS.isdisjoint((item.get("status") or {}).get("args") or ())
    sees = "image" in ((item.get("architecture") or {}).get("input_modalities") or ())
    traits: list[ModelTrait] = ["embed"] if embeds else ["chat", "schema"]
    traits += ["vision"] if sees else []
    if (props.get("chat_template_caps") or {}).get("supports_tools") and not embeds:
        traits.append("tools")
    settings = props.get("default_generation_settings") or {}
    return ModelReport(
        name=str(item["id"]),
        traits=tuple(traits),
        lacks=("chat",) if embeds else ("embed",),
        warm=is_ready,
        context_length=settings.get("n_ctx") or meta.get("n_ctx"),
        dimension=meta.get("n_embd") if embeds else None,
        size_bytes=meta.get("size"),
    )


def running(
    items: list[dict[str, Any]], named: Callable[[str], str] = lambda own: own
) -> dict[str, Any]:
    """What is in memory, or on its way there; `named` says what callers call a model."""
    return {
        "models": [
            {
                "name": named(str(item["id"])),
                "model": named(str(item["id"])),
                "state": state(item),
                "context_length": (item.get("meta") or {}).get("n_ctx"),
                "size": (item.get("meta") or {}).get("size"),
            }
            for item in items
            if state(item) in BUSY
        ]
    }


def load_progress(data: dict[str, Any]) -> float | None:
    """How much of a model is loaded, 0 to 1: its stages follow each other, `value` is of one."""
    progress = data.get("progress")
    if not isinstance(progress, dict) or not isinstance(progress.get("value"), int | float):
        return None
    stages = [str(stage) for stage in progress.get("stages") or ()]
    current = str(progress.get("current"))
    done = stages.index(current) if current in stages else 0
    return min(1.0, (done + float(progress["value"])) / max(1, len(stages)))


class Downloads:
    """Adds up the files of one download, which come at the same time."""

    def __init__(self) -> None:
        """No file named yet."""
        self._files: dict[str, tuple[int, int]] = {}

    def progress(self, data: dict[str, Any]) -> Progress:
        """An event's map of URL to bytes; the server puts it into `progress`, its page does not."""
        inner = data.get("progress")
        files = inner if isinstance(inner, dict) else data
        for url, told in files.items():
            if isinstance(told, dict):
                self._files[url] = (int(told.get("done") or 0), int(told.get("total") or 0))
        return Progress(
            status="downloading",
            overall_total_bytes=sum(total for _, total in self._files.values()),
            overall_completed_bytes=sum(done for done, _ in self._files.values()),
        )
