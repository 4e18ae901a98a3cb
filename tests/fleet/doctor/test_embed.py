"""`fleet doctor embed`: whether vectors are the same alone, in one job, and as concurrent jobs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fleet import Fleet, fleet

SOUND = "scripted-embed:dim=16,first=0.01"
MIXED_UP = "scripted-embed:dim=16,first=0.01,wire=company"
"""Its vectors are others in company, as in ollama #6262."""
AWAY = "scripted-embed:fail=crash"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    with fleet(folder, "ollama", models=(SOUND, MIXED_UP)) as one:
        yield one


def doctor(one: Fleet, *words: str) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "doctor", "embed", *words, "--json", "--url", one.url],
        capture_output=True, text=True, timeout=100, env=dict(os.environ), check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_sound_backend_is_found_so_and_packs(running: Fleet) -> None:
    code, (found,) = doctor(running, SOUND)

    assert (code, found["state"]) == (0, "ok"), found
    assert "jobs share requests" in found["detail"]


def test_a_backend_whose_vectors_change_in_company_is_not_packed(running: Fleet) -> None:
    code, (found,) = doctor(running, MIXED_UP)

    assert (code, found["state"]) == (0, "note"), found
    assert "no jobs share a request" in found["detail"]
    assert "1.00000 as concurrent jobs" in found["detail"]


def test_a_model_that_nobody_has_is_a_note(running: Fleet) -> None:
    code, (found,) = doctor(running, "nobodys")

    assert (code, found["state"]) == (0, "note")
    assert "fleet pull" in found["fix"]
