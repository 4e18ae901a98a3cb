"""Errors, messages and bars are no markup: words of backends and models stay what they are."""

import io

import pytest
from rich.console import Console

from contract.errors import UnknownModel
from contract.events import Delta
from fleet.cli.event_printer import EventPrinter
from fleet.cli.exit_codes import complain
from fleet.cli.terminal import Terminal

MARKUP = [
    r"a \[link=https://evil.example]word[/link]",
    r"a \[/bold] nobody opened",
    "[bold]no[/bold] :warning: [/]",
    "a backslash \\",
]


def drawing() -> Terminal:
    terminal = Terminal()
    terminal.stderr = Console(file=io.StringIO(), width=120, force_terminal=True)
    return terminal


def drawn(terminal: Terminal) -> str:
    assert isinstance(terminal.stderr.file, io.StringIO)
    return terminal.stderr.file.getvalue()


@pytest.mark.parametrize("text", MARKUP)
def test_an_error_is_shown_word_for_word(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    complain(UnknownModel(text))

    assert f": {text}\n" in capsys.readouterr().err


@pytest.mark.parametrize("text", MARKUP)
def test_a_message_is_shown_word_for_word(text: str) -> None:
    terminal = drawing()

    terminal.message(text)

    assert text in drawn(terminal)


@pytest.mark.parametrize("text", MARKUP)
def test_a_bar_has_its_name_word_for_word(text: str) -> None:
    terminal = drawing()
    for bar in (terminal.bytes_bar(), terminal.share_bar()):
        with bar:
            bar.add_task(text, total=1)
    with terminal.step_bar("embed", text, 1):
        pass

    assert drawn(terminal).count(text) >= 3


@pytest.mark.parametrize("text", MARKUP)
def test_thoughts_are_shown_word_for_word(text: str) -> None:
    terminal = drawing()

    EventPrinter(terminal)._delta(Delta(thinking=text))

    assert text in drawn(terminal)
