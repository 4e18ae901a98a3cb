"""Bars of what comes before the words: they end whole where the words came."""

import io

import pytest
from rich.console import Console

from contract.events import Delta, Done, Event, Failed, Phase, Progress
from fleet.cli.event_printer import EventPrinter
from fleet.cli.terminal import Terminal


def shown(*events: Event) -> str:
    terminal = Terminal()
    terminal.stderr = Console(file=io.StringIO(), width=80)
    found = EventPrinter(terminal)
    for event in events:
        if isinstance(event, Delta):
            found._delta(event)
        else:
            found._print_other(event)
    found.end()
    assert isinstance(terminal.stderr.file, io.StringIO)
    return terminal.stderr.file.getvalue()


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (Delta(content=""), "100%"),
        (Done(), "100%"),
        (Failed(code="server_fault", message="it broke"), "70%"),
    ],
)
def test_a_load_that_is_told_up_to_70_percent_ends_as_it_really_did(
    last: Event, expected: str
) -> None:
    assert expected in shown(Phase(phase="loading", progress=0.7), last)


def test_a_download_ends_whole() -> None:
    layer = Progress(
        status="pulling", digest="sha256:" + "a" * 64, completed_bytes=900, total_bytes=1000
    )

    assert "1.0/1.0 kB" in shown(layer, Done())
