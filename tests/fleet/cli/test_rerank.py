"""`fleet rerank` orders what a file or standard input holds, and the client does the same."""

import json
from pathlib import Path

import pytest
from support.up import Command, Up

from contract.errors import UnknownModel
from fleet.client.sync_client import Client

QUERY = "when does it open"
LINES = "the river is wide\nit does open at nine\nwhen does it open\n"


def test_lines_are_printed_by_their_relevance(fleet: Command) -> None:
    said = fleet("rerank", QUERY, stdin=LINES)

    assert said.returncode == 0, said.stderr
    assert [line.split("\t")[1:] for line in said.stdout.splitlines()] == [
        ["3", "when does it open"],
        ["2", "it does open at nine"],
        ["1", "the river is wide"],
    ]


def test_objects_keep_their_ids_and_only_the_best_are_printed(
    fleet: Command, tmp_path: Path
) -> None:
    file = tmp_path / "docs.jsonl"
    rows = [{"id": f"d{n}", "body": f"number {n}"} for n in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ("--texts-a-job", "7", "--jobs-in-flight", "3")
    said = fleet("rerank", "number 33", str(file), "-c", "body", "-n", "2", "--json", *small)

    assert said.returncode == 0, said.stderr
    assert [json.loads(line)["id"] for line in said.stdout.splitlines()] == ["d33", "d0"]


def test_what_is_no_text_is_left_out_and_told(fleet: Command) -> None:
    said = fleet("rerank", QUERY, stdin=f'{LINES}\n{{"x": 1}}\n')

    assert said.returncode == 5
    assert len(said.stdout.splitlines()) == 3
    assert "rows left out: 2" in said.stderr


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (("rerank", QUERY), "", 2),
        (("rerank", ""), "a\n", 2),
        (("rerank", QUERY, "nowhere.txt"), "", 2),
        (("rerank", QUERY, "-n", "0"), "a\n", 2),
        (("rerank", QUERY, "-m", "scripted-echo"), "a\n", 1),
    ],
)
def test_a_mistake_has_an_exit_code(
    fleet: Command, words: tuple[str, ...], stdin: str, code: int
) -> None:
    said = fleet(*words, stdin=stdin)

    assert said.returncode == code
    assert said.stderr


def test_the_client_ranks_documents_of_many_jobs(up: Up) -> None:
    documents = (f"number {n}" for n in range(100))
    with Client(up.url) as client:
        best = client.rerank(
            "number 42", documents, model="scripted-rerank", top_n=3, documents_a_job=9
        )
        none = client.rerank("a", [], model="scripted-rerank")
        with pytest.raises(UnknownModel):
            client.rerank("a", ["b"], model="nobody-has-this")

    assert [each.index for each in best] == [42, 0, 1]
    assert none == ()
