"""Base class of all settings: `FLEET_*` variables and `fleet.toml`, and the text of an error.

The `fleet.toml` is that of the current folder, which may be somebody else's: a project that was
cloned, an archive that was unpacked. Such a file may set numbers and names. The settings in GUARDED
count only in a file that its user has trusted (`fleet trust`), with what it says in them: after a
change of one of them it must be trusted anew.
"""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from contract.errors import InvalidSetting

TABLES: Final = {"aliases": "alias", "queues": "queue"}
"""Tables of fleet.toml that stand for a setting: `[alias.fast]` is one of `aliases`."""
TOO_DEEP: Final = "it is nested too deeply"
"""What is wrong with a file at which Python's parser of TOML ends with RecursionError."""
_LONGEST: Final = 60
_PASSWORD: Final = re.compile(r"://[^/@\s]+@")


def refusal(kind: type[BaseModel], error: ValidationError, given: Mapping[str, Any]) -> str:
    """All errors of a validation in one line; `given` are arguments, which override variables."""
    return "; ".join(
        _one(str(each["loc"][0]), each, kind, given)
        if each["loc"]
        else each["msg"].removeprefix("Value error, ")  # of a validator of several settings
        for each in error.errors(include_url=False, include_context=False)
    )


def _one(name: str, error: Any, kind: type[BaseModel], given: Mapping[str, Any]) -> str:
    field = kind.model_fields.get(name)
    value = "" if field is None or _is_secret(field) else f" = {_shown(error['input'])}"
    bounds = _bounds(field)
    reason = bounds or error["msg"].removeprefix("Value error, ")
    inner = "".join(
        f": {step}" if at == 0 else f".{step}" for at, step in enumerate(error["loc"][1:])
    )
    return f"{_origin(name, given)}{inner}{value}: {reason}"


def _origin(name: str, given: Mapping[str, Any]) -> str:
    """The name under which the value was set: argument, variable or key of fleet.toml."""
    if name in given:
        return name
    variable = f"FLEET_{name.upper()}"
    if any(found.upper() == variable for found in os.environ):
        return variable
    return f"fleet.toml: {TABLES.get(name, name)}"


def _unparsed(error: SettingsError) -> str:
    """The variable whose value is no JSON, as the field in the error names it."""
    named = re.search(r'field "(\w+)"', str(error))
    return f"FLEET_{named[1].upper()}" if named else "a FLEET_ variable"


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr.__name__ in repr(field.annotation)


def _shown(value: object) -> str:
    text = _PASSWORD.sub("://***@", " ".join(str(value).split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _bounds(field: FieldInfo | None) -> str:
    """As in `give a whole number from 1 to 1000`; empty if the field is not a number."""
    if field is None or not (limits := _limits(field)):
        return ""
    return f"give a {'whole ' if 'int' in repr(field.annotation) else ''}number {limits}"


def bounds_of(field: FieldInfo) -> dict[str, float]:
    """A field's limits by `ge`, `gt`, `le` and `lt`."""
    kinds = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt"}
    return {
        name: getattr(found, name)
        for found in field.metadata
        for kind, name in kinds.items()
        if isinstance(found, kind)
    }


def _limits(field: FieldInfo) -> str:
    limits = bounds_of(field)
    low = f"from {limits['ge']:g}" if "ge" in limits else ""
    low = f"above {limits['gt']:g}" if "gt" in limits else low
    high = f"to {limits['le']:g}" if "le" in limits else ""
    return " ".join(filter(None, (low, high)))


def default_folder() -> Path:
    """The default folder for data: $XDG_DATA_HOME/llm-fleet."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "llm-fleet"


GUARDED: Final = frozenset(
    {
        # Where requests, keys and data go.
        "api_key", "backends", "control", "data_dir", "files_url", "health_file",
        "kubernetes_url", "redis_dir", "redis_url", "service_account", "url",
        # Who may call, and what a caller may reach.
        "first_key", "host", "hosts", "insecure", "metrics_address", "metrics_key", "metrics_port",
        "oidc_algorithms", "oidc_audience", "oidc_issuer", "oidc_jwks_url", "oidc_tenant_claim",
        "oidc_permission_prefix", "oidc_permissions_claim", "oidc_tenants", "origins",
        "pass_image_urls",
        "private_images", "private_webhooks",
    }
)  # fmt: skip
"""Settings that an untrusted file may not set."""
_TRUST: Final = "FLEET_TRUST"
"""Absolute folders whose file is trusted, separated as those in PATH: for services and images."""


def trusted_list() -> Path:
    """The file of the user that says which files are trusted: JSON, path to digest."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "llm-fleet" / "trusted.json"


def guarded(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says in guarded settings, in whatever case it names them."""
    return {name: found[name] for name in sorted(found) if name.lower() in GUARDED}


def digest(file: Path, found: Mapping[str, Any]) -> str:
    """Stands for a file's place and what it says in guarded settings."""
    told = [str(file.resolve()), guarded(found)]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def read_trusted() -> dict[str, str]:
    """Digests by path; empty if there is no list, or it cannot be read."""
    try:
        found = json.loads(trusted_list().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_trusted(file: Path, found: Mapping[str, Any]) -> bool:
    """Whether this file counts with what it says."""
    place = file.resolve()
    folders = os.environ.get(_TRUST, "").split(os.pathsep)
    if any(Path(each).is_absolute() and Path(each).resolve() == place.parent for each in folders):
        return True
    return read_trusted().get(str(place)) == digest(file, found)


def demand_trust(file: Path, found: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check that a file may set these settings; raises InvalidSetting, which names them."""
    wanted = sorted(GUARDED.intersection(names))
    if not wanted or is_trusted(file, found):
        return
    raise InvalidSetting(
        f"{file.resolve()} sets {', '.join(wanted)}, which a file may set only if you trust it, "
        "because such settings say where keys and requests go or who may call: read it, then run "
        f"`fleet trust` there; or set {_variables(wanted)} instead"
    )


def _variables(names: Iterable[str]) -> str:
    return ", ".join(
        "LLM_<NAME>" if each == "backends" else f"FLEET_{each.upper()}" for each in names
    )


DAY_S: Final = 86400
YEARS_S: Final = 10 * 366 * DAY_S
MOST_BYTES: Final = 2**50
Seconds = Annotated[float, Field(gt=0, le=YEARS_S)]
"""A duration. It has bounds on both sides, because scripts, timers and clocks have limits."""


class FleetSettings(BaseSettings):
    """Settings of any fleet process: defaults, then `fleet.toml`, then `FLEET_*` variables."""

    model_config = SettingsConfigDict(
        env_prefix="FLEET_",
        toml_file="fleet.toml",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def __init__(self, **given: Any) -> None:
        """Read the sources; raises InvalidSetting, in one line without secrets."""
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise InvalidSetting(refusal(type(self), error, given)) from None
        except SettingsError as error:
            raise InvalidSetting(f"{_unparsed(error)}: give valid JSON") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise InvalidSetting(f"fleet.toml cannot be read: {error}") from None
        except RecursionError:
            raise InvalidSetting(f"fleet.toml cannot be read: {TOO_DEEP}") from None

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the file, and the file before the defaults."""
        return init_settings, env_settings, _ProjectFile(settings_cls)


class _ProjectFile(TomlConfigSettingsSource):
    """The `fleet.toml` of the current folder, which may set some settings only if it is trusted."""

    @override
    def __call__(self) -> dict[str, Any]:
        """What it says; raises InvalidSetting for what it may not say.

        The library takes names in any case, so its own result says what counts. It would also
        merge a table with what a variable says; a guarded setting has its value from one place.
        """
        found, given = super().__call__(), self.current_state.keys()
        counted = self.settings_cls.model_fields.keys() & found.keys()
        demand_trust(Path("fleet.toml"), self.toml_data, counted - given)
        return {name: it for name, it in found.items() if name not in GUARDED & given}
