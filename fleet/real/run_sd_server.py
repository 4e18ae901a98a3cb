"""Runs an sd-server with the tiny model on a free port, as a context manager."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Final

from fleet.real.sd_server import OPTIONS, find
from fleet.real.serving import RealServer, started, stop
from fleet.real.tiny_flux import tiny_flux

READY_S: Final = 60.0
"""It reads 250 MB of text encoder, zeros all of them, before it listens."""


@contextmanager
def running_sd_server(*options: str, ready_s: float = READY_S) -> Iterator[RealServer]:
    """Run the server; a 64x64 image takes about a second. Raises NotBuilt or DidNotStart."""
    words = [str(find()), *tiny_flux().options, "--listen-ip", "127.0.0.1", *OPTIONS, *options]
    with tempfile.TemporaryDirectory(prefix="sd-server-") as place:
        log_path = Path(place) / "log.txt"
        # It has no /health (stable-diffusion.cpp, examples/server/api.md).
        give_up_at = monotonic() + ready_s
        server = started(words, log_path, "/v1/models", give_up_at, port_option="--listen-port")
        try:
            yield server
        finally:
            stop(server.process)
