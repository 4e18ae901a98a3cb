"""Sections of bench/RESULTS.md that others than `make bench` write, each between two marks."""

import re
from pathlib import Path

_SECTION = re.compile(r"^<!-- section: \S+ -->\n.*?^<!-- end -->\n", re.DOTALL | re.MULTILINE)


def sections(path: Path) -> str:
    """All of them, as they stand in the file; empty if there are none."""
    return "\n".join(_SECTION.findall(path.read_text(encoding="utf-8"))) if path.exists() else ""


def put(path: Path, name: str, text: str) -> None:
    """Write a section anew, at the end of the file."""
    mark = f"<!-- section: {name} -->\n"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    kept = _SECTION.sub(lambda found: "" if found[0].startswith(mark) else found[0], old)
    whole = f"{kept.rstrip()}\n\n{mark}{text.strip()}\n<!-- end -->\n"
    path.write_text(whole, encoding="utf-8")
