"""Prometheus of this machine for a test, skipped loudly where there is none."""

import subprocess
from pathlib import Path

from fleet.real.prometheus import NoPrometheus, find
from support.debian_programs import missing


def prometheus_folder() -> Path:
    """Where `prometheus` and `promtool` are; LLM_FLEET_DEBIAN=require: none is a failure."""
    try:
        return find()
    except NoPrometheus as error:
        missing(f"NO PROMETHEUS, NOTHING IS PROVED: {error}")


def promtool(*words: str, given: str = "") -> str:
    """What a command of promtool prints; it must succeed."""
    done = subprocess.run(
        [str(prometheus_folder() / "promtool"), *words],
        input=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
