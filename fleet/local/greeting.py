"""The five lines that `fleet up` prints when it is ready. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from api_shim.submission.roster_cache import Pool
from api_shim.submission.roster_views import backend_view
from contract.roster import ModelReport
from fleet.client.settings import ClientSettings
from fleet.local.launch_plan import STAND_IN, PlannedBackend

_LABEL: Final = 10
_NOTHING_FOUND: Final = "none found ({name} is used): start Ollama, then `fleet up` again"


def greeting(
    urls: Sequence[str],
    planned: Sequence[PlannedBackend],
    found: Mapping[str, Pool],
    *,
    needs_key: bool,
    width: int,
    folder: str | None = None,
) -> list[str]:
    """Address, page, backends, models, a first command: a line each, lists cut to `width`.

    `folder` is the data folder if it is not the default one.
    """
    room = width - _LABEL
    first = urls[0]
    lines = (
        ("address", _address(urls, folder, room)),
        ("page", f"{first}/ (/docs has the API)"),
        ("backends", _backends(planned, found, room)),
        ("models", _models(found, room)),
        ("try", _command(first, found, needs_key=needs_key)),
    )
    return [f"{label:<{_LABEL}}{text}" for label, text in lines]


def _address(urls: Sequence[str], folder: str | None, room: int) -> str:
    where = f" --data-dir {folder}" if folder else ""
    text = f"{' '.join(urls)} (Ctrl-C ends it; `fleet logs -f{where}`)"
    if where and len(text) > room:
        return f"{' '.join(urls)} (Ctrl-C ends it)"
    return text


def _backends(planned: Sequence[PlannedBackend], found: Mapping[str, Pool], room: int) -> str:
    stand_in = next((each.name for each in planned if each.why == STAND_IN), None)
    if stand_in is not None and len(found) <= 1:
        return _NOTHING_FOUND.format(name=stand_in)
    names = list(dict.fromkeys([*(each.name for each in planned), *found]))
    return fit_list([_backend(name, found.get(name)) for name in names], room) or "none"


def _backend(name: str, pool: Pool | None) -> str:
    if pool is None:
        return f"{name} (starting)"
    view = backend_view(pool)
    address = view.endpoints[0].rpartition("://")[2] if view.endpoints else ""
    where = f" {address}" if address else ""
    if not pool.workers:
        return f"{name}{where} (no worker yet)"
    return f"{name}{where}" if view.healthy else f"{name}{where} (down: {view.error})"


def _models(found: Mapping[str, Pool], room: int) -> str:
    names = [model.name for model in sorted(_reports(found), key=_chats_first)]
    if names:
        return fit_list(list(dict.fromkeys(names)), room)
    if any("pull" in pool.capabilities and pool.is_healthy for pool in found.values()):
        return "none yet: `fleet pull llama3.2` downloads one"
    return "none yet: `fleet backends` shows why"


def _reports(found: Mapping[str, Pool]) -> Iterable[ModelReport]:
    return (reports[0] for pool in found.values() for reports in pool.models.values())


def _chats_first(model: ModelReport) -> tuple[bool, bool, str]:
    return "chat" not in model.traits, not model.warm, model.name


def _command(url: str, found: Mapping[str, Pool], *, needs_key: bool) -> str:
    needs = [] if url == ClientSettings.model_fields["url"].default else [f"FLEET_URL={url}"]
    needs += ["FLEET_API_KEY=..."] if needs_key else []
    models = list(_reports(found))
    if any("chat" in each.traits or not each.traits for each in models):
        command = "fleet chat Hello" if needs else 'fleet chat "Why is the sky blue?"'
    elif any("embed" in each.traits for each in models):
        command = "fleet embed texts.txt -o vectors.npy"
    elif any("image" in each.traits for each in models):
        command = 'fleet image "a lighthouse" -o lighthouse.png'
    else:
        command = "fleet doctor"
    return " ".join([*needs, command])


def fit_list(names: Sequence[str], room: int) -> str:
    """Names separated by commas, as many as fit in `room` columns, and the number of others."""
    for count in range(len(names), 1, -1):
        left = len(names) - count
        text = ", ".join(names[:count]) + (f" and {left} more" if left else "")
        if len(text) <= room:
            return text
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    first = names[0]
    space = max(room - len(more), 8)
    return (first if len(first) <= space else f"{first[: space - 1]}…") + more
