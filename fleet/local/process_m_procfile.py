"""The Procfile's lines: the one place where the command of each process stands."""

from pathlib import Path

from honcho.environ import parse_procfile

from fleet.client.errors import CannotStart

_PLACES = (Path(__file__).parent / "Procfile", Path(__file__).parent.parent / "Procfile")
"""Inside an installed wheel; at the top of a source tree."""


def commands() -> dict[str, str]:
    """Command lines by name, as in `shim`; each is one simple command for a shell."""
    for place in _PLACES:
        if place.is_file():
            return dict(parse_procfile(place.read_text(encoding="utf-8")).processes)
    raise CannotStart("the Procfile is missing from this installation: install llm-fleet again")


def worker_command(backend: str) -> str:
    """The line of a backend's workers: its own, else the one for any backend."""
    lines = commands()
    return lines.get(f"worker-{backend}") or lines["worker"]
