"""Settings of clients and of `fleet up`; read when a client is created or a command starts."""

from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from contract.settings import MOST_BYTES, FleetSettings, Seconds, default_folder


class ClientSettings(FleetSettings):
    """Settings of a client: `FLEET_URL`, `FLEET_API_KEY`, `FLEET_GIVE_UP_S`."""

    url: str = "http://127.0.0.1:8700"
    """Address of the shim; several, separated by commas, are tried in turn."""
    api_key: SecretStr | None = None
    """Sent as a bearer token; `fleet keys create` makes one."""
    give_up_s: Seconds = 60.0
    """Seconds without a response from any shim after which requests raise FleetUnreachable."""


api_key_option: ContextVar[SecretStr | None] = ContextVar("api_key_option", default=None)
"""The value of `--api-key` while a command runs; used before FLEET_API_KEY."""


class UpSettings(FleetSettings):
    """Settings of `fleet up`; command-line options override them."""

    data_dir: Path | None = None
    """Folder of the embedded Redis server and of files; `fleet up` creates it."""
    host: str = "127.0.0.1"
    """Address that the shims listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    """Port of the first shim, the next ones follow; 0: free ones."""
    redis_memory_bytes: Annotated[int | None, Field(ge=10**7, le=MOST_BYTES)] = None
    """`maxmemory` of the embedded Redis server, which takes no new jobs beyond it; unset: a quarter
    of the memory of the machine or container."""


def data_folder(given: Path | None = None) -> Path:
    """The data folder of `fleet up`: `given`, else FLEET_DATA_DIR, else the default one."""
    return given or UpSettings().data_dir or default_folder()


def addresses(url: str) -> tuple[str, ...]:
    """The addresses in `http://a,http://b`, in order, without trailing slashes."""
    return tuple(part.strip().rstrip("/") for part in url.split(",") if part.strip())
