"""What a person sees in a terminal of 80 columns, and what a program reads from a pipe."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress

import pytest
from rich.cells import cell_len
from support.up import DEADLINE_S, ROOT, Command, Up, environment

from contract.errors import FleetError
from fleet import Client

LISTS = [
    ("jobs", "list"),
    ("dead", "list"),
    ("queues",),
    ("backends",),
    ("models",),
    ("workers",),
    ("keys", "list"),
    ("batch", "list"),
    ("ps",),
    ("config", "show", "--origin"),
]
HEX = re.compile(r"\b[0-9a-f]{32}\b")


@pytest.fixture(scope="module")
def busy(up: Up) -> Iterator[list[str]]:
    """Ids of 25 jobs with a long name of a model, and one that is dead."""
    model = "scripted-story:chunks=1,rate=1000.000000000000000000000001"
    words = [{"role": "user", "content": "x"}]
    with Client(up.url) as fleet:
        jobs = [
            fleet.enqueue("chat", model=model, backend="scripted", messages=words)
            for _ in range(25)
        ]
        failing = "scripted-story:fail=error"
        dead = fleet.enqueue(
            "chat", model=failing, backend="scripted", messages=words, max_attempts=1
        )
        for job in [*jobs, dead]:
            with suppress(FleetError):
                job.result()
        yield [job.id for job in jobs]


def raw_output(up: Up, *words: str, columns: int = 80) -> str:
    """All that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet", *words],
        cwd=ROOT,
        env=environment(FLEET_URL=up.url, TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    data = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        data += piece
    os.close(ours)
    assert process.wait(DEADLINE_S) == 0
    return data.decode()


def seen(up: Up, *words: str, columns: int = 80) -> list[str]:
    """Lines that a command shows in a terminal, without colours."""
    shown = raw_output(up, *words, columns=columns)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).splitlines()


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_every_list_fits_eighty_columns(up: Up, busy: list[str], words: tuple[str, ...]) -> None:
    lines = seen(up, *words)

    assert len(lines[0].split()) > 1
    assert max(map(cell_len, lines)) <= 80
    assert not any(HEX.search(line) for line in lines)


def test_a_terminal_shows_the_newest_twenty_and_all_on_demand(up: Up, busy: list[str]) -> None:
    assert len(seen(up, "jobs", "list")) == 21
    assert len(seen(up, "jobs", "list", "--limit", "3")) == 4
    assert len(seen(up, "jobs", "list", "--all")) > 25
    assert len(seen(up, "queues", "--limit", "2")) == 3


def test_the_id_that_a_terminal_shows_names_the_job(
    up: Up, fleet: Command, busy: list[str]
) -> None:
    shown = [line.split()[0] for line in seen(up, "jobs", "list", "--all")[1:]]
    known = [short for short in shown if any(id.startswith(short) for id in busy)]

    assert len(known) == len(busy)
    for verb in ("show", "watch", "cancel"):
        said = fleet("jobs", verb, known[0])
        assert said.returncode == 0, said.stderr
    assert json.loads(fleet("jobs", "show", known[0], "--json").stdout)["id"] in busy
    with Client(up.url) as client:
        assert client.job(known[1]).view().id in busy
        assert client.job(known[1]).result().status == "done"


def test_a_beginning_that_is_nobodys_is_said_as_it_was_typed(fleet: Command) -> None:
    missing = fleet("jobs", "show", "00000000")

    assert missing.returncode == 1
    assert "there is no job 00000000" in missing.stderr


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_a_pipe_gets_a_line_a_row_and_nothing_cut(
    fleet: Command, busy: list[str], words: tuple[str, ...]
) -> None:
    table = fleet(*words).stdout.splitlines()
    rows = fleet(*(word for word in words if word != "--origin"), "--json").stdout.splitlines()

    assert len(table) == len(rows) + 1
    assert not any("…" in line for line in table)


def test_a_pipe_has_whole_ids_and_names(fleet: Command, busy: list[str]) -> None:
    lines = fleet("jobs", "list", "--limit", "200").stdout.splitlines()[1:]

    assert {line.split()[0] for line in lines} >= set(busy)
    assert any("scripted-story:chunks=1,rate=1000.000000000000000000000001" in it for it in lines)


EVIL = "a\x1b[31mRED\x1b]0;T\x07\x9b2J\u202eb\tc"


def test_the_answer_of_a_model_cannot_control_the_terminal(up: Up, fleet: Command) -> None:
    chat = ("chat", "-m", "scripted-echo", "-b", "scripted", EVIL)
    shown = raw_output(up, *chat)

    assert r"a\x1b[31mRED\x1b]0;T\x07\x9b2J\u202eb" in shown
    assert not any(each in shown for each in "\x1b\x07\x9b\u202e")
    assert EVIL in fleet(*chat).stdout
    assert EVIL in raw_output(up, *chat, "--raw")


def test_json_on_a_terminal_has_its_control_characters_escaped(up: Up, fleet: Command) -> None:
    shown = raw_output(up, "chat", "-m", "scripted-echo", "-b", "scripted", "--json", EVIL)

    assert not any(each in shown for each in "\x1b\x07\x9b\u202e")
    events = [json.loads(line) for line in shown.splitlines()]
    assert EVIL in "".join(each.get("content") or "" for each in events)


def test_an_error_that_names_what_was_sent_has_it_escaped(fleet: Command) -> None:
    refused = fleet("jobs", "show", "x\x1b[31m\x9b")

    assert refused.returncode != 0
    assert not any(each in refused.stderr for each in "\x1b\x9b")
