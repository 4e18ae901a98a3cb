"""Runs a llama-server on a free port, as a context manager."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Final

from fleet.real.llama_server import OPTIONS, find
from fleet.real.serving import DidNotStart, RealServer, started, stop
from fleet.real.tiny_model import tiny_model

__all__ = ["DidNotStart", "LlamaServer", "running_llama_server"]

LlamaServer = RealServer

READY_S: Final = 30.0
"""The tiny model is ready after a tenth of a second; a busy machine is slower."""


@contextmanager
def running_llama_server(
    *options: str,
    model: Path | Mapping[str, Path] | None = None,
    embeddings: bool = False,
    slots: int = 16,
    ready_s: float = READY_S,
) -> Iterator[LlamaServer]:
    """Run the server with `slots` parallel requests, and with further options.

    `model` is a file, by default the tiny model; with several by name the server is a router, which
    loads them on demand. At the end it gets SIGTERM twice, because with streams in flight it
    ignores the first, then SIGKILL. Raises NotBuilt or DidNotStart.
    """
    words = [str(find()), "--host", "127.0.0.1", "-np", str(slots), *OPTIONS]
    words += [*(["--embeddings"] if embeddings else []), *options]
    with tempfile.TemporaryDirectory(prefix="llama-server-") as place:
        log_path = Path(place) / "log.txt"
        words += _model_words(model or tiny_model(), Path(place))
        server = started(words, log_path, "/health", monotonic() + ready_s)
        try:
            yield server
        finally:
            stop(server.process)


def _model_words(model: Path | Mapping[str, Path], place: Path) -> list[str]:
    if isinstance(model, Path):
        return ["-m", str(model)]
    preset = place / "models.ini"
    sections = (f"[{name}]\nmodel = {path}\n" for name, path in model.items())
    preset.write_text("version = 1\n\n" + "\n".join(sections))
    return ["--models-preset", str(preset), "--models-max", str(len(model))]
