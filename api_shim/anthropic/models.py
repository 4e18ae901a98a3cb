"""GET /v1/models for clients of Anthropic's API: every model of every backend, a page at a time.

OpenAI has the same path; its routes serve all requests without the header `anthropic-version`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope
from typing_extensions import override

from api_shim.anthropic.message_body import invalid_field
from api_shim.dependencies import Injected
from api_shim.http.authentication import Caller
from api_shim.http.error_hints import OPENAI
from api_shim.http.headers import is_anthropic
from api_shim.submission.roster_cache import Pool, listing
from api_shim.submission.selection import absent
from contract.json_lines import json_line
from contract.model_names import find
from contract.roster import ModelReport
from relay.roster import Roster


class AnthropicRoute(APIRoute):
    """A route that serves clients of Anthropic's API alone."""

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """NONE for the requests of other clients."""
        if scope["type"] != "http" or not is_anthropic(scope):
            return Match.NONE, {}
        return super().matches(scope)


# The document has one operation for each path and method: OpenAI's.
router = APIRouter(prefix="/v1", route_class=AnthropicRoute, include_in_schema=False)

_LONGEST_PAGE = 1000


def model_cards(roster: Roster, found: Mapping[str, Pool]) -> list[dict[str, Any]]:
    """The models as Anthropic lists them, chat models first."""
    every = roster.workers
    since = {
        report.name: min(w.started_at for w in every if report in w.backends)
        for worker in every
        for report in worker.backends
    }
    return [
        _card(name, owners, since.get(owners[0].name, 0.0))
        for name, owners in listing(found.values()).items()
    ]


def _card(name: str, owners: Sequence[Pool], since: float) -> dict[str, Any]:
    reports = [report for pool in owners for report in pool.models.get(name, ())]
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": datetime.fromtimestamp(int(since), UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "line": None,
        "max_input_tokens": _most(report.context_length for report in reports),
        "max_tokens": _most(report.max_output_tokens for report in reports),
        "capabilities": _capabilities(reports),
    }


def _most(numbers: Iterable[int | None]) -> int | None:
    return max((number for number in numbers if number is not None), default=None)


def _capabilities(reports: Sequence[ModelReport]) -> dict[str, Any]:
    """What is known of a model; a capability that no server reports counts as missing."""
    has = {trait for report in reports for trait in report.traits}
    thinks = {"supported": "thinking" in has}
    return {
        "batch": {"supported": True},
        "citations": {"supported": False},
        "code_execution": {"supported": False},
        "context_management": {"supported": False},
        "effort": {**thinks, **dict.fromkeys(("low", "medium", "high", "xhigh", "max"), thinks)},
        "image_input": {"supported": "vision" in has},
        "pdf_input": {"supported": False},
        "server_tools": {"supported": False},
        "structured_outputs": {"supported": "schema" in has},
        "thinking": {**thinks, "types": {"adaptive": thinks, "enabled": thinks}},
    }


@router.get("/models")
async def models(
    dependencies: Injected,
    caller: Caller,
    *,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 20,
    after_id: str | None = None,
    before_id: str | None = None,
) -> Response:
    """List the models of all backends and the aliases, chat models first."""
    roster = await dependencies.roster.read()
    cards = model_cards(roster, dependencies.listed(caller))
    names = [card["id"] for card in cards]
    if before_id is not None:
        end = _place(names, before_id, "before_id")
        page, has_more = cards[max(0, end - limit) : end], end > limit
    else:
        start = 0 if after_id is None else _place(names, after_id, "after_id") + 1
        page, has_more = cards[start : start + limit], len(cards) > start + limit
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else _NOTHING
    return _json({"data": page, **ends, "has_more": has_more})


def _place(names: Sequence[str], name: str, field: str) -> int:
    if name not in names:
        raise invalid_field(field, f"no model is called {name[:80]!r}")
    return names.index(name)


@router.get("/models/{model:path}")
async def model(
    model: Annotated[str, Path(max_length=256)], dependencies: Injected, caller: Caller
) -> Response:
    """Get one model."""
    roster = await dependencies.roster.read()
    backends = dependencies.listed(caller, model)
    found = find({card["id"]: card for card in model_cards(roster, backends)}, model)
    if found is None:
        raise absent(model, backends.values(), OPENAI)
    return _json(found[1])


_NOTHING = {"first_id": None, "last_id": None}


def _json(value: Any) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(json_line(value), 200, headers, media_type="application/json")
