"""Aliases over HTTP: listed for every tenant; set and deleted by admins, for all shims at once."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Response

from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Admin, Caller
from api_shim.http.json_body import JsonRoute
from api_shim.http.problems import documented
from api_shim.native.jobs import json_response
from api_shim.submission.alias_targets import target_views
from api_shim.submission.caller_rights import allowed_route
from contract.aliases.alias_table import Alias, AliasList, AliasView
from contract.errors import InvalidRequest, NotAllowed, UnknownAlias
from contract.tenants import Tenant

router = APIRouter(prefix="/api/v1/aliases", tags=["aliases"], route_class=JsonRoute)

AliasName = Annotated[
    str, Path(description="1 to 128 visible ASCII characters; `*` stands for any characters.")
]
_EXAMPLES: Final[Any] = {
    "model": {"summary": "A second name", "value": {"model": "qwen3:8b"}},
    "fallbacks": {
        "summary": "With parameters and fallbacks",
        "value": {
            "model": "qwen3:8b",
            "backend": "box",
            "wait_s": 10,
            "default": {"temperature": 0.2},
            "force": {"num_ctx": 16384},
            "fallbacks": ["qwen3:4b", {"model": "gpt-4.1-mini", "backend": "cloud"}],
        },
    },
}


class AliasViews:
    """Aliases as one caller sees them, with what the fleet can do now."""

    def __init__(self, dependencies: Dependencies, caller: Tenant) -> None:
        """For one call; the roster was read."""
        self._aliases = dependencies.aliases
        self._caller = caller
        roster, self._pools = dependencies.roster.seen_by(caller, every_model=True)
        self._workers = roster.workers

    @property
    def names(self) -> list[str]:
        """The aliases that the caller's key may use."""
        return [name for name in self._aliases.table.aliases if self._may_use(name)]

    def _may_use(self, name: str) -> bool:
        if not self._caller.is_limited:
            return True
        try:
            allowed_route(self._caller, name, self._aliases.table.route(name, name))
        except (NotAllowed, InvalidRequest):
            return False
        return True

    def of(self, name: str) -> AliasView:
        """One alias."""
        table = self._aliases.table
        alias = self._without_others(name, table.aliases[name])
        view = AliasView(
            name=name,
            origin="stored" if self._aliases.is_stored(name) else "configured",
            alias=alias if self._caller.admin else _without_parameters(alias),
            targets=(),
            shadows=any(name in pool.models for pool in self._pools.values())
            and alias.model != name,
        )
        try:
            route = allowed_route(self._caller, name, table.route(name, name))
            targets = target_views(route, self._pools, self._workers)
        except InvalidRequest as error:
            return view.model_copy(update={"problem": error.message})
        return view.model_copy(update={"targets": targets})

    def _without_others(self, name: str, alias: Alias) -> Alias:
        """The alias without the models that the caller's key may not use."""
        if not self._caller.is_limited:
            return alias
        first = allowed_route(self._caller, name, self._aliases.table.route(name, name)).targets[0]
        only = {"model": first.model, "backend": first.backend, "fallbacks": ()}
        return alias.model_copy(update=only)


def _without_parameters(alias: Alias) -> Alias:
    """The alias without what it sets in requests, as a system prompt."""
    bare: dict[str, Any] = {"default": {}, "force": {}}
    fallbacks = tuple(each.model_copy(update=bare) for each in alias.fallbacks)
    return alias.model_copy(update={**bare, "fallbacks": fallbacks})


async def _views(dependencies: Dependencies, caller: Tenant) -> AliasViews:
    await dependencies.roster.read()
    return AliasViews(dependencies, caller)


@router.get("", operation_id="list_aliases", response_model=AliasList, responses=documented(503))
async def list_aliases(dependencies: Injected, caller: Caller) -> Response:
    """List aliases: what each stands for, and whether the fleet can use it now."""
    await dependencies.aliases.refresh()
    views = await _views(dependencies, caller)
    return json_response(AliasList(aliases=tuple(views.of(name) for name in views.names)))


@router.get(
    "/{name:path}",
    operation_id="get_alias",
    response_model=AliasView,
    responses=documented(404, 503),
)
async def get(name: AliasName, dependencies: Injected, caller: Caller) -> Response:
    """Get one alias by its name, as it is written: `claude-*`, not a name that fits it."""
    await dependencies.aliases.refresh()
    views = await _views(dependencies, caller)
    if name not in views.names:
        raise UnknownAlias(f"there is no alias {name[:128]}: GET /api/v1/aliases lists them")
    return json_response(views.of(name))


@router.put(
    "/{name:path}",
    operation_id="set_alias",
    response_model=AliasView,
    responses=documented(400, 403, 404, 413, 415, 422, 503),
)
async def put(
    name: AliasName,
    alias: Annotated[Alias, Body(openapi_examples=_EXAMPLES)],
    dependencies: Injected,
    admin: Admin,
) -> Response:
    """Set an alias, also over one of the settings; jobs that are queued keep what they began with.

    Every shim has it within seconds. `targets` of the answer say what the fleet cannot use now.
    """
    await dependencies.aliases.put(name, alias)
    views = await _views(dependencies, admin)
    return json_response(views.of(name))


@router.delete(
    "/{name:path}",
    operation_id="delete_alias",
    status_code=204,
    response_class=Response,
    responses=documented(403, 404, 422, 503),
)
async def delete(name: AliasName, dependencies: Injected, _: Admin) -> Response:
    """Delete an alias that was set; one of the settings that it had replaced counts again."""
    await dependencies.aliases.delete(name)
    return Response(status_code=204)
