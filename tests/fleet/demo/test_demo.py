"""The demo runs, checks what it claims, and fails when a claim does not hold."""

import subprocess
import sys

import pytest
from support.up import DEADLINE_S, ROOT, environment

from fleet.demo.narrator import Narrator, PromiseBroken, promise
from fleet.demo.neighbours import sentences


def test_a_broken_promise_is_an_error() -> None:
    promise(kept=True, what="fine")
    with pytest.raises(PromiseBroken, match="nothing is lost"):
        promise(kept=False, what="nothing is lost")


def test_there_are_a_few_hundred_sentences() -> None:
    assert 200 <= len(sentences()) == len(set(sentences()))


def test_the_table_tells_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()
    narrator.measured("a promise", "7 [events]")
    narrator.finish("go on")

    told = capsys.readouterr().out
    assert "a promise" in told
    assert "7 [events]" in told


@pytest.mark.slow
def test_the_demo_keeps_its_promises_without_a_terminal() -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "fleet", "demo", "--without-embeddings"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "kill -9" in demo.stdout
    assert demo.stdout.count("✓") == 2
