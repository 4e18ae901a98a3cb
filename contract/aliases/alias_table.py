"""Aliases as they are configured and stored, and what a model's name means by them. Pure.

A name means, in this order: an alias of that name, a model that a backend has, an alias whose name
is a pattern that fits (`claude-*`; of several the one with the most characters that are no `*`).

The model of an alias or fallback may be the name of another alias, which is replaced by its
targets; patterns do not count there. An alias that names itself means the model of that name, so
that a model can get parameters and fallbacks under its own name.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import override

from contract.aliases.parameters import checked
from contract.errors import InvalidRequest
from contract.model_names import is_same, untagged
from contract.requests import AliasTarget, BackendName, Route
from contract.wire import ClientModel, WireModel

WAIT_S: Final = 30.0
"""Seconds that a job waits for a target before it moves on, if its alias does not say it."""
MOST_TARGETS: Final = 8
"""Targets that an alias has at most, with those of aliases that it names."""
MOST_STARS: Final = 2
"""Wildcards that a name has at most."""
_LONGEST_NAME: Final = 256
_MOST_STEPS: Final = 64
"""Targets that are looked at for one alias, the same one twice included."""
ALIAS_NAME: Final = re.compile(r"^[!-~]{1,128}$")
"""The name of an alias: visible ASCII characters; `*` stands for any number of characters."""

_Parameters = Annotated[dict[str, Any], Field(max_length=32)]


class Fallback(ClientModel):
    """A model that takes over where the one before it is not available."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    """A model, or the name of another alias."""
    backend: BackendName | None = None
    """Without it, the backend that has the model."""
    wait_s: Annotated[float, Field(ge=0, le=86400)] | None = None
    """Seconds that a job may wait here before it moves to the next one; without it, as the alias
    says."""
    default: _Parameters = Field(default_factory=dict)
    """Parameters for requests that leave them out; those of the alias count where these name
    none."""
    force: _Parameters = Field(default_factory=dict)
    """Parameters that replace those of the request; those of the alias count where these name
    none."""

    @model_validator(mode="before")
    @classmethod
    def _is_a_name(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @classmethod
    @override
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema, with the name alone as its other form."""
        name = {"type": "string", "minLength": 1, "maxLength": 256}
        return {"anyOf": [handler(core_schema), name]}

    @field_validator("default", "force")
    @classmethod
    def _are_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        return checked(parameters)


class Alias(Fallback):
    """What a name stands for: a model, parameters, and what takes over if it is not available."""

    fallbacks: Annotated[tuple[Fallback, ...], Field(max_length=MOST_TARGETS - 1)] = ()
    """Tried in this order while the job has no output."""


class TargetView(WireModel):
    """A target of an alias, and whether the fleet can use it now."""

    model: str
    backend: str | None
    wait_s: float
    problem: str | None = None
    """Why it would not be used now; null: it would."""


class AliasView(WireModel):
    """An alias as HTTP shows it."""

    name: str
    origin: str
    """`configured`: a setting of the shim; `stored`: set by an admin at run time."""
    alias: Alias
    """As it was written; other callers than admins do not see the parameters."""
    targets: tuple[TargetView, ...]
    """What it means, in the order of use; none: it cannot be used."""
    problem: str | None = None
    """Why it cannot be used."""
    shadows: bool = False
    """Whether a backend has a model of this name, which is reached only through the alias."""


class AliasList(WireModel):
    """Aliases by name."""

    aliases: tuple[AliasView, ...]


class AliasTable:
    """The aliases of a fleet at one time."""

    def __init__(self, aliases: Mapping[str, Alias]) -> None:
        """By name; `check` tells whether all of them can be used."""
        self.aliases = dict(sorted(aliases.items()))
        self._named = {untagged(name): name for name in self.aliases if "*" not in name}

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """The most specific one first."""
        names = [name for name in self.aliases if "*" in name]
        names.sort(key=lambda name: (name.count("*") - len(name), name))
        return [(_pattern(name), name) for name in names]

    @property
    def names(self) -> list[str]:
        """Names that a client may use: those that are no patterns."""
        return list(self._named.values())

    def find(self, model: str, is_model: Callable[[str], bool]) -> str | None:
        """The alias that a model's name means; None: it means a model.

        `is_model` tells whether a backend has a model of that name.
        """
        if not self.aliases:
            return None
        exact = self._named.get(untagged(model))
        if exact is not None or not self._patterns or len(model) > _LONGEST_NAME or is_model(model):
            return exact
        names = (model, untagged(model))
        return next(
            (name for pattern, name in self._patterns if any(map(pattern.fullmatch, names))), None
        )

    def route(self, asked: str, name: str, weight: float = 1.0) -> Route:
        """The route of a request for the model `asked`, by the alias of this name.

        Raises InvalidRequest if aliases name each other in a circle, or have too many targets.
        """
        targets: dict[tuple[str, str | None], AliasTarget] = {}
        for step, target in enumerate(self._targets(name, ())):
            targets.setdefault((untagged(target.model), target.backend), target)
            if len(targets) > MOST_TARGETS or step >= _MOST_STEPS:
                raise InvalidRequest(
                    f"alias {name}: it has more than {MOST_TARGETS} targets, with those of the "
                    "aliases that it names: name fewer fallbacks"
                )
        return Route(alias=asked, targets=tuple(targets.values()), weight=weight)

    def check(self) -> None:
        """Raise InvalidRequest for the first alias that cannot be used."""
        for name in self.aliases:
            _check_name(name)
            self.route(name, name)

    def _is_own(self, name: str) -> bool:
        """Whether an alias stands for the model of its name."""
        return is_same(self.aliases[name].model, name)

    def _targets(self, name: str, above: tuple[str, ...]) -> Iterator[AliasTarget]:
        alias = self.aliases[name]
        above = (*above, name)
        for each in (alias, *alias.fallbacks):
            target = AliasTarget(
                model=each.model,
                backend=each.backend,
                wait_s=_first(each.wait_s, alias.wait_s, WAIT_S),
                default={**alias.default, **each.default},
                force={**alias.force, **each.force},
            )
            inner = self._named.get(untagged(each.model))
            if inner is None or inner == name or (inner in above and self._is_own(inner)):
                yield target
            elif inner in above or len(above) > MOST_TARGETS:
                raise InvalidRequest(_circle((*above, inner)))
            else:
                yield from (_over(target, it) for it in self._targets(inner, above))


def _circle(names: tuple[str, ...]) -> str:
    *above, last = names
    if last not in above:
        return f"aliases name each other more than {MOST_TARGETS} deep: {' -> '.join(names)}"
    return f"aliases name each other in a circle: {' -> '.join(names[above.index(last) :])}"


def _over(outer: AliasTarget, inner: AliasTarget) -> AliasTarget:
    """A target of an alias that another one names, whose parameters count over its own."""
    return AliasTarget(
        model=inner.model,
        backend=inner.backend or outer.backend,
        wait_s=inner.wait_s,
        default={**inner.default, **outer.default},
        force={**inner.force, **outer.force},
    )


def _first(*seconds: float | None) -> float:
    return next(each for each in seconds if each is not None)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", name))), re.DOTALL)


def _check_name(name: str) -> None:
    if not ALIAS_NAME.match(name):
        raise InvalidRequest(
            f"alias {name[:40]!r}: a name has 1 to 128 visible ASCII characters, no spaces"
        )
    if name.count("*") > MOST_STARS:
        raise InvalidRequest(f"alias {name}: a name has at most {MOST_STARS} wildcards (*)")


def demand_aliases(aliases: Mapping[str, Alias]) -> AliasTable:
    """A table of aliases that can all be used; raises InvalidRequest."""
    table = AliasTable(aliases)
    table.check()
    return table
