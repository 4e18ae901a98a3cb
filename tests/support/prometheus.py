"""Prometheus of this machine for a test, skipped loudly where there is none."""

import os
import subprocess
from pathlib import Path

import pytest

from fleet.real.prometheus import NoPrometheus, find


def prometheus_folder() -> Path:
    """Where `prometheus` and `promtool` are; LLM_FLEET_REAL=require makes it a failure."""
    try:
        return find()
    except NoPrometheus as missing:
        told = f"NO PROMETHEUS, NOTHING IS PROVED: {missing}"
        if os.environ.get("LLM_FLEET_REAL") == "require":
            pytest.fail(told)
        pytest.skip(told)


def promtool(*words: str, given: str = "") -> str:
    """What a command of promtool prints; it must succeed."""
    done = subprocess.run(
        [str(prometheus_folder() / "promtool"), *words],
        input=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
