"""Plans what `fleet up` starts: addresses, backends, and the number of processes of each."""

import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.client.errors import CannotStart
from fleet.local.redis_server import free_port, port_is_free
from fleet.local.scaling import ScaleRange
from workers.backends.discovery import discover
from workers.backends.dsn import WELL_KNOWN, BackendConfig, DsnError, parse
from workers.config import configured

STAND_IN = (
    "no model server responds on this machine's default ports, so a scripted one is used: start "
    "Ollama, llama-server, LM Studio or vLLM, or give --backend NAME=DSN"
)
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")


@dataclass(frozen=True)
class PlannedBackend:
    """A backend to start workers for."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables of its workers, as in `LLM_BOX=ollama://...`; may contain keys."""
    why: str = ""
    """Where it comes from, for messages."""
    processes: int = 1
    """Workers to start for it."""


@dataclass(frozen=True)
class Plan:
    """Everything that `fleet up` starts."""

    folder: Path
    host: str = "127.0.0.1"
    ports: tuple[int, ...] = (8700,)
    backends: tuple[PlannedBackend, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    """Additional environment variables of every process."""
    scales: Mapping[str, ScaleRange] = field(default_factory=dict)
    """Backends whose number of workers follows the demand; `processes` are those of all others."""
    down_after_s: float = 60.0
    """Seconds of lower demand after which such a backend gets fewer workers."""

    def first_workers(self, backend: PlannedBackend, known: Collection[str]) -> int:
        """How many workers a backend starts with.

        One that may have none starts with one, unless it is among the `known`: a worker must report
        its models before jobs can be accepted for them.
        """
        bounds = self.scales.get(backend.name)
        if bounds is None:
            return backend.processes
        return bounds.least or int(backend.name not in known)

    @property
    def urls(self) -> tuple[str, ...]:
        """URL of each shim, for clients on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return tuple(f"http://{host}:{port}" for port in self.ports)


async def backends(given: Sequence[str], environ: Mapping[str, str]) -> list[PlannedBackend]:
    """The backends given as `NAME=DSN`, else those configured, else those on default ports.

    If there are none, the scripted backend. A configured backend of type `local`, which only
    embeds, is used beside discovered ones. Raises CannotStart.
    """
    if given:
        return [backend_from_option(option) for option in given]
    try:
        known = configured(environ)
    except DsnError as error:
        raise CannotStart(str(error)) from error
    planned = [PlannedBackend(each.name, why="configured") for each in known]
    if any(each.type != "local" for each in known):
        return planned
    return planned + (await discovered_backends() or [PlannedBackend("scripted", why=STAND_IN)])


async def discovered_backends() -> list[PlannedBackend]:
    """The model servers that respond on this machine's default ports."""
    return [backend_from_discovery(each) for each in await discover()]


def backend_from_option(option: str) -> PlannedBackend:
    """A backend from `NAME=DSN`; raises CannotStart."""
    name, equals, dsn = option.partition("=")
    if not equals or not _NAME.match(name):
        raise CannotStart(
            "--backend expects NAME=DSN, as in --backend ollama=ollama://127.0.0.1:11434; NAME "
            "has lower-case letters, digits and _"
        )
    try:
        return backend_from_dsn(name, dsn, "given with --backend")
    except DsnError as error:
        raise CannotStart(f"--backend {name}: {error}") from error


def backend_from_dsn(name: str, dsn: str, why: str) -> PlannedBackend:
    """A backend from its name and its DSN; raises DsnError, which never contains a key."""
    if not _NAME.match(name):
        raise DsnError(f"{name}: a name has lower-case letters, digits and _, a letter first")
    variable = f"LLM_{name.upper()}"
    if "@" in dsn.partition("?")[2]:  # a key with an unescaped ?, whose rest would be an option
        raise DsnError(f"{variable}: write ? and @ of a key percent-encoded, as %3F and %40")
    parse(variable, dsn)
    return PlannedBackend(name, {variable: dsn}, why)


def backend_from_discovery(config: BackendConfig) -> PlannedBackend:
    """A backend from a server that discovery found."""
    name = config.name.replace("-", "_")  # a shell drops variables with a dash
    protocol, _, address = config.url.partition("://")
    dsn = f"{config.type}+{protocol}://{address}"
    return PlannedBackend(name, {f"LLM_{name.upper()}": dsn}, f"found at {config.url}")


def shim_ports(host: str, port: int, shims: int) -> tuple[int, ...]:
    """A port for each shim: from `port` up, or free ones for 0. Raises CannotStart.

    Another program may take a free port before the shim listens; then the shim fails to start.
    """
    if port == 0:
        ports: dict[int, None] = {}
        while len(ports) < shims:
            ports[free_port(host)] = None
        return tuple(ports)
    for wanted in range(port, port + shims):
        if not port_is_free(host, wanted):
            raise CannotStart(
                f"port {wanted} on {host} is in use by another program: stop that one, or choose "
                "another port with --port (0: free ones)"
            )
    return tuple(range(port, port + shims))


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Our environment with the variables in `more`, and this interpreter's folder first on PATH.

    A variable in `more` replaces every other variable that names the same backend. Processes
    import nothing from the current folder, which may be somebody else's.
    """
    hidden = {variable for variable, name in WELL_KNOWN.items() if f"LLM_{name.upper()}" in more}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and name.upper() not in more
    }
    folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])
    return {**kept, **more, "PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
