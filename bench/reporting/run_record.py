"""bench/results.json: every figure of a run, and of which run it is."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.figures import Figures
from bench.machine import described

FILE: Final = "results.json"
_LIST: Final = re.compile(r"\[[-+\d.,e\s]+\]")


def provenance(rounds: int, load: float) -> dict[str, Any]:
    """Of which run figures are: its time, the commit, the rounds, the load when it began."""
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit(),
        "rounds": rounds,
        "load": round(load, 1),
    }


def commit() -> str:
    """The commit that is measured, and whether files differ from it; "unknown" without git."""
    git = shutil.which("git")
    if git is None:
        return "unknown"

    def told(*words: str) -> str:
        done = subprocess.run([git, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = told("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench")
    return (told("rev-parse", "--short=10", "HEAD") or "unknown") + (
        " with changes" * bool(changed)
    )


class Record:
    """The figures of each scenario, as they are on disk."""

    def __init__(self, scenarios: dict[str, dict[str, Any]]) -> None:
        """As read."""
        self.scenarios = scenarios

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """What is there; empty if there is nothing."""
        path = folder / FILE
        return cls(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})

    def put(self, name: str, origin: dict[str, Any], figures: Figures) -> None:
        """The figures of a scenario, instead of those before."""
        rounded = {key: [float(f"{v:.4g}") for v in each] for key, each in figures.values.items()}
        self.scenarios[name] = {
            **origin,
            "machine": described(),
            "missing": figures.missing,
            "values": rounded,
        }

    def save(self, folder: Path) -> None:
        """Write it, a line a figure."""
        text = json.dumps(self.scenarios, indent=1, ensure_ascii=False)
        flat = _LIST.sub(lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "["), text)
        (folder / FILE).write_text(flat.replace(" ]", "]") + "\n", encoding="utf-8")

    def figures(self) -> Figures:
        """Those of all scenarios together."""
        whole = Figures()
        for name, each in self.scenarios.items():
            whole.values.update(each["values"])
            whole.missing.update({f"{who} in {name}": why for who, why in each["missing"].items()})
        return whole
