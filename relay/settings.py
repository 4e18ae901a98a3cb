"""Where Redis is, and how long things in it live. Read once, in a composition root."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from contract.errors import InvalidSetting
from relay.settings_m_bounds import refusal


def default_folder() -> Path:
    """Where data lives when nobody says: $XDG_DATA_HOME/llm-fleet."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "llm-fleet"


DAY_S: Final = 86400
YEARS_S: Final = 10 * 366 * DAY_S
MOST_BYTES: Final = 2**50
_MOST_JOBS: Final = 10**9
_MOST_TOKENS: Final = 10**15
Seconds = Annotated[float, Field(gt=0, le=YEARS_S)]
"""Some time. Every number has bounds on both sides: scripts, timers and clocks have theirs."""


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
        """Read the sources; raises InvalidSetting, in one line that holds no secret."""
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise InvalidSetting(refusal(type(self), error, given)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise InvalidSetting(f"fleet.toml cannot be read: {error}") from None

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
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


class RelaySettings(FleetSettings):
    """What the relay needs to know."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """`redis://`, `rediss://` or `unix:///path`; may hold a password."""
    log_ttl_s: Seconds = 86400
    """Seconds that a record and its log live after the job's end."""
    log_cap_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 64 * 2**20
    """Bytes that one job may say; more is a `failed` with `log_full`."""
    queue_limit: Annotated[int, Field(ge=1, le=_MOST_JOBS)] = 100_000
    """Jobs that may wait in one queue."""
    queue_limit_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] = 500_000_000
    """Estimated tokens that may wait in one queue."""
    tenant_limit: Annotated[int | None, Field(ge=1, le=_MOST_JOBS)] = None
    """Jobs of one tenant that may wait in one queue, where its key names no bound."""
    tenant_limit_tokens: Annotated[int | None, Field(ge=1, le=_MOST_TOKENS)] = None
    """Estimated tokens of one tenant that may wait in one queue, where its key names no bound."""
    affinity_patience_s: Annotated[float, Field(ge=0, le=YEARS_S)] = 20
    """Seconds for which jobs of a model in memory may overtake the head of their queue."""
    dead_ttl_s: Seconds = 7 * 86400
    """Seconds that a dead letter's record and log are kept."""
    lease_s: Seconds = 15
    """Seconds that a worker holds a job without renewing."""
    renew_s: Seconds = 4
    """Seconds between two renewals."""
    reap_s: Seconds = 3
    """Seconds between two looks for expired leases."""
    command_timeout_s: Seconds = 5
    """Seconds that any one command may take before its connection counts as lost. Together with
    `renew_s` well below `lease_s`, so that a half-open connection costs no lease."""
