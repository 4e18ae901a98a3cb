"""/api/tags, ps, show, copy, delete: models as Ollama lists and handles them. Pure.

The lists come from what workers report, so they tell of every backend's models. What no worker
reports (digest, date, family) stands in them only as far as clients need it to be there.
Source: ollama/ollama `api/types.go` (ListModelResponse, ProcessModelResponse, ShowResponse).
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from api_shim.http.error_hints import OLLAMA
from api_shim.ollama.request_fields import NamedModel, OllamaRequest, requested
from api_shim.ollama.response_fields import stamp
from api_shim.submission.ignored_fields import LeftAlone
from api_shim.submission.roster_cache import Pool, listing
from api_shim.submission.selection import absent
from contract.errors import InvalidRequest
from contract.json_lines import json_line
from contract.model_kinds import MODEL_KINDS, ModelKind
from contract.models import CopyRequest, DeleteRequest, LoadRequest, ShowRequest
from contract.result import Result
from contract.roster import ModelReport, ModelTrait

_CAPABILITIES: Final[Mapping[ModelTrait, str]] = {
    "chat": "completion",
    "embed": "embedding",
    "vision": "vision",
    "tools": "tools",
    "thinking": "thinking",
    "image": "image",
}
_NEVER: Final = "2300-01-01T00:00:00Z"
"""When a model leaves memory: nobody reports it, and clients take an absent one for the past."""


class ShowBody(NamedModel):
    """A model to tell about."""

    verbose: Annotated[bool | None, LeftAlone(unless=(False,))] = None


class DeleteBody(NamedModel):
    """A model to delete."""


class CopyBody(OllamaRequest):
    """A model to give a second name."""

    source: str = ""
    destination: str = ""


def to_show(body: ShowBody) -> ShowRequest:
    """The job that a show is; raises InvalidRequest."""
    return requested(ShowRequest, backend=body.backend, model=body.wanted)


def to_delete(body: DeleteBody) -> DeleteRequest:
    """The job that a delete is; raises InvalidRequest."""
    return requested(DeleteRequest, backend=body.backend, model=body.wanted)


def to_copy(body: CopyBody) -> CopyRequest:
    """The job that a copy is; raises InvalidRequest."""
    for field in ("source", "destination"):
        if not getattr(body, field):
            raise InvalidRequest(f"{field}: required")
    return requested(
        CopyRequest, backend=body.backend, model=body.source, destination=body.destination
    )


def reports_of(model: str, backend: str | None, fleet: Iterable[Pool]) -> list[ModelReport]:
    """What workers report of a model, on one backend or on all of them."""
    return [report for pool in _having(model, backend, fleet) for report in pool.find(model)]


def kinds_of(model: str, backend: str | None, fleet: Iterable[Pool]) -> list[ModelKind]:
    """What a model is for, on one backend or on all of them, as far as that is known."""
    return [kind for pool in _having(model, backend, fleet) for kind in pool.kinds(model)]


def is_beyond(request: LoadRequest | ShowRequest, fleet: Collection[Pool]) -> bool:
    """Whether those who have the model have no way to load it, or to show more of it.

    The one is always in memory, of the other the workers' reports tell all that there is to tell.
    Raises Refusal where nobody has the model, which counts before what a backend can do.
    """
    having = _having(request.model, request.backend, fleet)
    if not having and fleet and request.backend is None:
        raise absent(request.model, fleet, OLLAMA)
    return bool(having) and not any(request.kind in pool.capabilities for pool in having)


def _having(model: str, backend: str | None, fleet: Iterable[Pool]) -> list[Pool]:
    return [pool for pool in fleet if pool.name == (backend or pool.name) and pool.find(model)]


def tags(pools: Iterable[Pool], now: float) -> bytes:
    """The list of all models; one that several backends have stands in it once."""
    return json_line(
        {"models": [_tag(name, owners, now) for name, owners in listing(pools).items()]}
    )


def running(pools: Iterable[Pool], now: float) -> bytes:
    """The list of the models that some backend has in memory."""
    warm = {
        name: owners
        for name, owners in listing(pools).items()
        if any(report.warm for report in _reports(name, owners))
    }
    return json_line({"models": [_process(name, owners, now) for name, owners in warm.items()]})


def shown(
    model: str,
    reports: Sequence[ModelReport],
    result: Result | None,
    now: float,
    kinds: Sequence[ModelKind] = (),
) -> bytes:
    """All about a model: what its backend told, over what workers report of it.

    `kinds` are what it may be for, where nobody tells.
    """
    told = (result.details if result else None) or {}
    known: dict[str, Any] = {
        "modified_at": stamp(now).decode(),
        "template": "",
        "modelfile": f"FROM {model}",
        "parameters": "",
        "license": "",
        "details": _details(reports),
        "model_info": _info(reports),
        "capabilities": _capabilities(reports, kinds),
    }
    fields = known | {name: value for name, value in told.items() if value is not None}
    for name in ("details", "model_info"):
        if not isinstance(fields[name], dict):
            fields[name] = known[name]
    return json_line(fields)


def _reports(name: str, owners: Iterable[Pool]) -> list[ModelReport]:
    return [report for pool in owners for report in pool.models[name]]


def _tag(name: str, owners: Sequence[Pool], now: float) -> dict[str, Any]:
    reports = _reports(name, owners)
    kinds = [kind for pool in owners for kind in pool.kinds(name)]
    return {
        "name": name,
        "model": name,
        "modified_at": stamp(now).decode(),
        "size": max((report.size_bytes or 0 for report in reports), default=0),
        "digest": _digest(name),
        "details": _details(reports),
        "capabilities": _capabilities(reports, kinds),
    }


def _process(name: str, owners: Sequence[Pool], now: float) -> dict[str, Any]:
    tag = _tag(name, owners, now)
    kept = {field: tag[field] for field in ("name", "model", "size", "digest", "details")}
    return kept | {
        "expires_at": _NEVER,
        "size_vram": tag["size"],
        "context_length": _most(report.context_length for report in _reports(name, owners)),
    }


def _digest(name: str) -> str:
    """Something that is the same for one name: `ollama list` shows its first twelve characters."""
    return hashlib.sha256(name.encode()).hexdigest()


def _details(reports: Sequence[ModelReport]) -> dict[str, Any]:
    lengths = {
        "context_length": _most(report.context_length for report in reports),
        "embedding_length": _most(report.dimension for report in reports),
    }
    return {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": None,
        "parameter_size": "",
        "quantization_level": "",
        **{name: number for name, number in lengths.items() if number},
    }


def _info(reports: Sequence[ModelReport]) -> dict[str, Any]:
    """Numbers under a made-up architecture: clients look for `<architecture>.context_length`."""
    numbers = {
        "fleet.context_length": _most(report.context_length for report in reports),
        "fleet.embedding_length": _most(report.dimension for report in reports),
    }
    return {"general.architecture": "fleet", **{k: v for k, v in numbers.items() if v}}


def _capabilities(reports: Sequence[ModelReport], kinds: Sequence[ModelKind]) -> list[str]:
    """Ollama's words for what it can do; where nobody tells, the first thing that it may be for."""
    traits = {trait for report in reports for trait in report.traits}
    if traits.isdisjoint(MODEL_KINDS):
        traits |= set(sorted(kinds, key=MODEL_KINDS.index)[:1])
    return [word for trait, word in _CAPABILITIES.items() if trait in traits]


def _most(numbers: Iterable[int | None]) -> int:
    return max((number or 0 for number in numbers), default=0)
