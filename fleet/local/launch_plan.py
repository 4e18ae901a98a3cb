"""What `fleet up` is to start: addresses, backends, how many of each. Decided beforehand."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.client.errors import CannotStart
from fleet.local.redis_server import free_port, port_is_free
from workers.backends.discovery import discover
from workers.backends.dsn import WELL_KNOWN, BackendConfig, DsnError, parse
from workers.config import configured

STAND_IN = (
    "no model server answers on this machine's default ports, so a scripted one stands in: start "
    "Ollama, llama-server, LM Studio or vLLM, or give --backend NAME=DSN"
)
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")


@dataclass(frozen=True)
class PlannedBackend:
    """A backend to start workers for."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What its workers need in their environment, as in `LLM_BOX=ollama://...`; may hold keys."""
    why: str = ""
    """Where it comes from, in words."""
    processes: int = 1
    """Workers to start for it."""


@dataclass(frozen=True)
class Plan:
    """Everything that `fleet up` was asked for."""

    folder: Path
    host: str = "127.0.0.1"
    ports: tuple[int, ...] = (8700,)
    backends: tuple[PlannedBackend, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    """More environment for every process."""

    @property
    def workers(self) -> int:
        """Worker processes, over all backends."""
        return sum(backend.processes for backend in self.backends)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where each shim answers, for callers on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return tuple(f"http://{host}:{port}" for port in self.ports)


async def backends(given: Sequence[str], environ: Mapping[str, str]) -> list[PlannedBackend]:
    """Those given as `NAME=DSN`, else those configured, else those found on default ports.

    With none of all these the scripted one, which says what it is. A folder of embeddings (type
    `local`) stands beside any of them. Raises CannotStart.
    """
    if given:
        return [given_backend(option) for option in given]
    try:
        known = configured(environ)
    except DsnError as error:
        raise CannotStart(str(error)) from error
    planned = [PlannedBackend(each.name, why="configured") for each in known]
    if any(each.type != "local" for each in known):
        return planned
    return planned + (await found_backends() or [PlannedBackend("scripted", why=STAND_IN)])


async def found_backends() -> list[PlannedBackend]:
    """The model servers that answer on this machine's default ports."""
    return [found_backend(each) for each in await discover()]


def given_backend(option: str) -> PlannedBackend:
    """A backend from `NAME=DSN`; raises CannotStart if it does not look like that."""
    name, equals, dsn = option.partition("=")
    if not equals or not _NAME.match(name):
        raise CannotStart(
            "--backend wants NAME=DSN, as in --backend ollama=ollama://127.0.0.1:11434; NAME is "
            "made of small letters, digits and _"
        )
    try:
        return named_backend(name, dsn, "given with --backend")
    except DsnError as error:
        raise CannotStart(f"--backend {name}: {error}") from error


def named_backend(name: str, dsn: str, why: str) -> PlannedBackend:
    """A backend from its name and its DSN; raises DsnError, which never repeats a key."""
    if not _NAME.match(name):
        raise DsnError(f"{name}: a name is made of small letters, digits and _, a letter first")
    variable = f"LLM_{name.upper()}"
    if "@" in dsn.partition("?")[2]:  # a key with a bare ?, whose rest would pass for an option
        raise DsnError(f"{variable}: write ? and @ of a key percent-encoded, as %3F and %40")
    parse(variable, dsn)
    return PlannedBackend(name, {variable: dsn}, why)


def found_backend(config: BackendConfig) -> PlannedBackend:
    """Tell a server that discovery found to its workers."""
    name = config.name.replace("-", "_")  # a shell drops variables with a dash
    protocol, _, address = config.url.partition("://")
    dsn = f"{config.type}+{protocol}://{address}"
    return PlannedBackend(name, {f"LLM_{name.upper()}": dsn}, f"found at {config.url}")


def shim_ports(host: str, port: int, shims: int) -> tuple[int, ...]:
    """A port for each shim: from `port` up, or free ones for 0. Raises CannotStart.

    A free port may be taken by somebody else before its shim listens; then the shim says so.
    """
    if port == 0:
        ports: dict[int, None] = {}
        while len(ports) < shims:
            ports[free_port(host)] = None
        return tuple(ports)
    for wanted in range(port, port + shims):
        if not port_is_free(host, wanted):
            raise CannotStart(
                f"port {wanted} on {host} is taken by another program: stop that one, or choose "
                "another port with --port (0 takes free ones)"
            )
    return tuple(range(port, port + shims))


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, with this interpreter's folder first on PATH: `python` in a line means this one.

    A variable in `more` hides whatever else names the same backend.
    """
    hidden = {variable for variable, name in WELL_KNOWN.items() if f"LLM_{name.upper()}" in more}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and name.upper() not in more
    }
    folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])
    return {**kept, **more, "PATH": path, "PYTHONUNBUFFERED": "1"}
