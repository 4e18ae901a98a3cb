"""GET /v1/models: every model of every backend, as OpenAI lists them."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from api_shim.dependencies import Injected
from api_shim.http.authentication import Caller
from api_shim.http.error_hints import OPENAI
from api_shim.openai.schemas import OpenAIModel, OpenAIModelList, faults
from api_shim.submission.roster_cache import Pool, listing
from api_shim.submission.selection import absent
from contract.json_lines import json_line
from contract.model_names import find
from relay.roster import Roster

router = APIRouter(prefix="/v1", tags=["openai"])


def cards(roster: Roster, found: Mapping[str, Pool]) -> dict[str, dict[str, Any]]:
    """The models of these backends by name.

    `created` is when a worker began to serve the backend; 0: none does.
    """
    every = roster.workers
    since = {
        report.name: int(min(w.started_at for w in every if report in w.backends))
        for worker in every
        for report in worker.backends
    }
    return {
        name: {
            "id": name,
            "object": "model",
            "owned_by": owners[0].name,
            "created": since.get(owners[0].name, 0),
        }
        for name, owners in listing(found.values()).items()
    }


@router.get(
    "/models",
    operation_id="openai_list_models",
    response_model=OpenAIModelList,
    responses=faults(503),
)
async def models(dependencies: Injected, caller: Caller) -> Response:
    """List the models and aliases, chat models first; `owned_by` is a backend that has it."""
    roster = await dependencies.roster.read()
    found = cards(roster, dependencies.listed(caller))
    return _answer({"object": "list", "data": list(found.values())})


@router.get(
    "/models/{model:path}",
    operation_id="openai_get_model",
    response_model=OpenAIModel,
    responses=faults(400, 404, 503),
)
async def model(
    model: Annotated[str, Path(description="Its name, slashes and all.", max_length=256)],
    dependencies: Injected,
    caller: Caller,
) -> Response:
    """Get one model."""
    roster = await dependencies.roster.read()
    backends = dependencies.listed(caller, model)
    found = find(cards(roster, backends), model)
    if found is None:
        raise absent(model, backends.values(), OPENAI)
    return _answer(found[1])


def _answer(value: Any) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(json_line(value), 200, headers, media_type="application/json")
