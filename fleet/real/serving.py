"""Starts and stops the process of a real server, on a free port."""

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
    """The server ended or was not ready in time; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class RealServer:
    """A server that is ready."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def root(self) -> str:
        """Base URL of the server's own paths: `/health`, `/props`, `/sdcpp/v1/...`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Base URL of the OpenAI-compatible paths."""
        return f"{self.root}/v1"

    @property
    def log(self) -> str:
        """The output so far."""
        return self.log_path.read_text(errors="replace")


def started(
    words: Sequence[str],
    log_path: Path,
    ready_path: str,
    give_up_at: float,
    port_option: str = "--port",
) -> RealServer:
    """Start a server; tries another port if the free one was taken meanwhile.

    It is ready when `ready_path` returns 200. Raises DidNotStart.
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
                # A router has child processes, which must be killed with it.
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
    """Send SIGTERM twice, then SIGKILL to the server and its children."""
    for number in (signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_ready(server: RealServer, path: str, give_up_at: float) -> bool:
    """Poll until the server is ready; False if it ended or time is up."""
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
