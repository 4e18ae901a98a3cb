"""A llama-server that runs as long as a `with` block, on a port of its own."""

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from fleet.real.llama_server import OPTIONS, find
from fleet.real.tiny_model import tiny_model

READY_S: Final = 30.0
"""The tiny model is ready after a tenth of a second; a busy machine is slower."""
STOP_S: Final = 2.0
PORT_TRIES: Final = 3


class DidNotStart(Exception):
    """The server ended or was not ready in time; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """A server that answers."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def root(self) -> str:
        """Address of `/health`, `/slots`, `/props`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Base of the OpenAI-shaped paths."""
        return f"{self.root}/v1"

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_path.read_text(errors="replace")


@contextmanager
def running_llama_server(
    *options: str,
    model: Path | Mapping[str, Path] | None = None,
    embeddings: bool = False,
    slots: int = 16,
    ready_s: float = READY_S,
) -> Iterator[LlamaServer]:
    """Run the server with `slots` parallel requests, and with further options of its own.

    Without a model it speaks with the tiny one; with several by name it is a router, which loads
    them when they are asked for. At the end it is told to stop twice, then killed: with streams
    in flight it ignores the first word. Raises NotBuilt or DidNotStart.
    """
    words = [str(find()), "--host", "127.0.0.1", "-np", str(slots), *OPTIONS]
    words += [*(["--embeddings"] if embeddings else []), *options]
    with tempfile.TemporaryDirectory(prefix="llama-server-") as place:
        log_path = Path(place) / "log.txt"
        words += _model_words(model or tiny_model(), Path(place))
        server = _started(words, log_path, monotonic() + ready_s)
        try:
            yield server
        finally:
            _stop(server.process)


def _model_words(model: Path | Mapping[str, Path], place: Path) -> list[str]:
    if isinstance(model, Path):
        return ["-m", str(model)]
    preset = place / "models.ini"
    sections = (f"[{name}]\nmodel = {path}\n" for name, path in model.items())
    preset.write_text("version = 1\n\n" + "\n".join(sections))
    return ["--models-preset", str(preset), "--models-max", str(len(model))]


def _started(words: list[str], log_path: Path, give_up_at: float) -> LlamaServer:
    """Start it, again on another port if somebody took the free one first."""
    tries = PORT_TRIES
    while True:
        port = _free_port()
        with log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own words
                [*words, "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A router has children, which must go with it.
                start_new_session=True,
            )
        server = LlamaServer(port, process, log_path)
        try:
            if _is_ready(server, give_up_at):
                return server
        except BaseException:
            _stop(process)
            raise
        _stop(process)
        tries -= 1
        if not tries or "bind" not in server.log:
            raise DidNotStart(f"llama-server did not get ready: ...{server.log[-2000:]}")


def _is_ready(server: LlamaServer, give_up_at: float) -> bool:
    """Ask until it is healthy; False if it ended or time is up."""
    while monotonic() < give_up_at and server.process.poll() is None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=1)
        with suppress(OSError, HTTPException), closing(connection):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:  # noqa: PLR2004 - 503 while it loads
                return True
        sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    for word in (signal.SIGTERM, signal.SIGTERM):
        process.send_signal(word)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
