"""/api/tags, ps, show, copy, delete: models as Ollama lists them. Pure.

The lists come from workers' reports, so they cover every backend. Fields that no worker reports
(digest, date, family) are filled in as far as clients require them. Source: ollama/ollama
`api/types.go` (ListModelResponse, ProcessModelResponse, ShowResponse).
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from api_shim.http.error_hints import OLLAMA
from api_shim.ollama.request_fields import NamedModel, OllamaRequest, build_request
from api_shim.ollama.response_fields import stamp
from api_shim.submission.ignored_fields import IgnoredField
from api_shim.submission.roster_cache import Pool, listing
from api_shim.submission.selection import absent
from contract.errors import InvalidRequest
from contract.json_lines import json_line
from contract.model_kinds import MODEL_KINDS, ModelKind
from contract.models import CopyRequest, DeleteRequest, LoadRequest, ShowRequest
from contract.requests import Word
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
"""When a model leaves memory: no worker reports it, and clients read an absent time as past."""


class ShowBody(NamedModel):
    """A model to show."""

    verbose: Annotated[bool | None, IgnoredField(unless=(False,))] = None


class DeleteBody(NamedModel):
    """A model to delete."""


class CopyBody(OllamaRequest):
    """A model to copy."""

    source: Word = ""
    destination: Word = ""


def to_show(body: ShowBody) -> ShowRequest:
    """The request for a show; raises InvalidRequest."""
    return build_request(ShowRequest, backend=body.backend, model=body.model_name)


def to_delete(body: DeleteBody) -> DeleteRequest:
    """The request for a delete; raises InvalidRequest."""
    return build_request(DeleteRequest, backend=body.backend, model=body.model_name)


def to_copy(body: CopyBody) -> CopyRequest:
    """The request for a copy; raises InvalidRequest."""
    for field in ("source", "destination"):
        if not getattr(body, field):
            raise InvalidRequest(f"{field}: required")
    return build_request(
        CopyRequest, backend=body.backend, model=body.source, destination=body.destination
    )


def reports_of(model: str, backend: str | None, fleet: Iterable[Pool]) -> list[ModelReport]:
    """Reports about a model, of one backend or of all."""
    return [report for pool in _having(model, backend, fleet) for report in pool.find(model)]


def kinds_of(model: str, backend: str | None, fleet: Iterable[Pool]) -> list[ModelKind]:
    """Kinds of jobs that a model does, on one backend or on any, as far as is known."""
    return [kind for pool in _having(model, backend, fleet) for kind in pool.kinds(model)]


def is_unsupported(request: LoadRequest | ShowRequest, fleet: Collection[Pool]) -> bool:
    """Whether no backend that has the model can load it, or show more of it.

    Such a model is always in memory, and its workers' reports are all there is to show: as for a
    backend without a live worker, because looking at a model should start none. Raises Refusal if
    no backend has the model.
    """
    having = _having(request.model, request.backend, fleet)
    if not having and fleet and request.backend is None:
        raise absent(request.model, fleet, OLLAMA)
    able = [pool for pool in having if request.kind in pool.capabilities]
    if isinstance(request, ShowRequest):
        able = [pool for pool in able if pool.workers]
    return bool(having) and not able


def _having(model: str, backend: str | None, fleet: Iterable[Pool]) -> list[Pool]:
    return [pool for pool in fleet if pool.name == (backend or pool.name) and pool.find(model)]


def tags_response(pools: Iterable[Pool], now: float) -> bytes:
    """The list of all models; one that several backends have is in it once."""
    return json_line(
        {"models": [_tag(name, owners, now) for name, owners in listing(pools).items()]}
    )


def ps_response(pools: Iterable[Pool], now: float) -> bytes:
    """The list of the models that a backend has in memory."""
    warm = {
        name: owners
        for name, owners in listing(pools).items()
        if any(report.warm for report in _reports(name, owners))
    }
    return json_line({"models": [_process(name, owners, now) for name, owners in warm.items()]})


def show_response(
    model: str,
    reports: Sequence[ModelReport],
    result: Result | None,
    now: float,
    kinds: Sequence[ModelKind] = (),
) -> bytes:
    """A model's details as its backend returned them, filled up from workers' reports.

    `kinds` stand in for capabilities that no worker reports.
    """
    details = (result.details if result else None) or {}
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
    fields = known | {name: value for name, value in details.items() if value is not None}
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
    shared_fields = {field: tag[field] for field in ("name", "model", "size", "digest", "details")}
    return shared_fields | {
        "expires_at": _NEVER,
        "size_vram": tag["size"],
        "context_length": _most(report.context_length for report in _reports(name, owners)),
    }


def _digest(name: str) -> str:
    """A value that is stable for a name; `ollama list` shows its first twelve characters."""
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
    """Lengths under an architecture of our own: clients read `<architecture>.context_length`."""
    numbers = {
        "fleet.context_length": _most(report.context_length for report in reports),
        "fleet.embedding_length": _most(report.dimension for report in reports),
    }
    return {"general.architecture": "fleet", **{k: v for k, v in numbers.items() if v}}


def _capabilities(reports: Sequence[ModelReport], kinds: Sequence[ModelKind]) -> list[str]:
    """Ollama's names of a model's capabilities; if none is reported, its first kind."""
    traits = {trait for report in reports for trait in report.traits}
    if traits.isdisjoint(MODEL_KINDS):
        traits |= set(sorted(kinds, key=MODEL_KINDS.index)[:1])
    return [word for trait, word in _CAPABILITIES.items() if trait in traits]


def _most(numbers: Iterable[int | None]) -> int:
    return max((number or 0 for number in numbers), default=0)
