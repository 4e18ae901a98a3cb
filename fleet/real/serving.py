"""A real server as a process of ours, on a port of its own, from its start to its end."""

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep
from typing import Final

STOP_S: Final = 2.0
PORT_TRIES: Final = 3


class DidNotStart(Exception):
    """The server ended or was not ready in time; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class RealServer:
    """A server that answers."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def root(self) -> str:
        """Address of what is not OpenAI's: `/health`, `/props`, `/sdcpp/v1/...`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Base of the OpenAI-shaped paths."""
        return f"{self.root}/v1"

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_path.read_text(errors="replace")


def started(
    words: Sequence[str],
    log_path: Path,
    ready_path: str,
    give_up_at: float,
    port_option: str = "--port",
) -> RealServer:
    """Start it, again on another port if somebody took the free one first.

    It is ready once `ready_path` answers 200. Raises DidNotStart.
    """
    tries = PORT_TRIES
    while True:
        port = _free_port()
        with log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own words
                [*words, port_option, str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A router has children, which must go with it.
                start_new_session=True,
            )
        server = RealServer(port, process, log_path)
        try:
            if _is_ready(server, ready_path, give_up_at):
                return server
        except BaseException:
            stop(process)
            raise
        stop(process)
        tries -= 1
        if not tries or "bind" not in server.log:
            name = Path(words[0]).name
            raise DidNotStart(f"{name} did not get ready: ...{server.log[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Tell it to stop twice, then kill it and its children."""
    for word in (signal.SIGTERM, signal.SIGTERM):
        process.send_signal(word)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_ready(server: RealServer, path: str, give_up_at: float) -> bool:
    """Ask until it is healthy; False if it ended or time is up."""
    while monotonic() < give_up_at and server.process.poll() is None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=1)
        with suppress(OSError, HTTPException), closing(connection):
            connection.request("GET", path)
            if connection.getresponse().status == 200:  # noqa: PLR2004 - 503 while it loads
                return True
        sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
