"""`fleet embed` against a running fleet: killed, interrupted, with bad rows, in every format."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.up import DEADLINE_S, ROOT, Command, Up, environment, wait_until

from fleet import Client
from fleet.embed.spool import path_for

EMBED = ("-b", "scripted", "-m", "scripted-embed")
SLOW = ("-b", "scripted", "-m", "scripted-embed:rate=2", "--texts-a-job", "50")
FIELDS = "scripted-embed:poison=snake,fail"


def texts_in(file: Path, *texts: str) -> Path:
    """A file of these texts, with ids where the format has them."""
    if file.suffix == ".parquet":
        ids = [f"t{at}" for at in range(len(texts))]
        pq.write_table(pa.table({"id": ids, "text": list(texts)}), file)
    elif file.suffix == ".jsonl":
        rows = ({"id": f"t{at}", "text": text} for at, text in enumerate(texts))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        head = "text\n" if file.suffix == ".csv" else ""
        file.write_text(head + "".join(f"{text}\n" for text in texts))
    return file


def vectors_in(file: Path) -> Any:
    if file.suffix == ".npy":
        return np.load(file)
    if file.suffix == ".parquet":
        rows = pq.read_table(file)["embedding"].to_pylist()
    else:
        rows = [json.loads(line)["embedding"] for line in file.read_text().splitlines()]
    return np.array([row or [np.nan] * 64 for row in rows], dtype=np.float32)


def numbered(count: int) -> list[str]:
    return [f"text number {number}" for number in range(count)]


def started(up: Up, source: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "fleet", "embed", str(source), "-o", str(out), *options]
    env = environment(FLEET_URL=up.url)
    return subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def rows_done(out: Path) -> bool:
    """Whether an interrupted run would have something to go on from."""
    with suppress(FileNotFoundError):
        return path_for(out).stat().st_size > 50 * 64 * 4
    return False


@pytest.mark.parametrize("more", [(), ("--restart",)])
def test_a_run_that_failed_at_once_does_not_block_the_next_one(
    fleet: Command, tmp_path: Path, more: tuple[str, ...]
) -> None:
    source, out = texts_in(tmp_path / "t.txt", "a", "b"), tmp_path / "o.npy"
    failed = fleet("embed", str(source), "-o", str(out), "-m", "nobody-has-this")
    again = fleet("embed", str(source), "-o", str(out), *more)

    assert (failed.returncode, again.returncode) == (1, 0)
    assert "rows are kept" not in failed.stderr
    assert vectors_in(out).shape[0] == 2


def test_every_format_gives_the_same_vectors_in_the_same_order(
    up: Up, fleet: Command, tmp_path: Path
) -> None:
    found = []
    for source, out in (("t.txt", "a.npy"), ("t.csv", "b.jsonl"), ("t.parquet", "c.parquet")):
        texts_in(tmp_path / source, *numbered(300))
        said = fleet(
            "embed",
            str(tmp_path / source),
            "-o",
            str(tmp_path / out),
            *EMBED,
            "--texts-a-job",
            "70",
        )
        assert (said.returncode, said.stdout) == (0, "")
        found.append(vectors_in(tmp_path / out))

    with Client(up.url) as client:
        assert np.array_equal(found[0], client.embed(numbered(300), model="scripted-embed"))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert pq.read_table(tmp_path / "c.parquet")["id"][299].as_py() == "t299"


@pytest.mark.parametrize("fail", ["context", "refuse", "crash", "after"])
def test_one_bad_text_loses_no_other(fleet: Command, tmp_path: Path, fail: str) -> None:
    rows = [*numbered(60), "a snake", *numbered(20), "", "two snakes a snake", *numbered(30)]
    source = texts_in(tmp_path / "t.jsonl", *rows)
    options = ("-b", "scripted", "-m", f"{FIELDS}={fail}", "--json", "--texts-a-job", "40")
    said = fleet("embed", str(source), "-o", str(tmp_path / "o.npy"), *options)
    errors = (tmp_path / "o.npy.errors.jsonl").read_text().splitlines()
    told = {row["index"]: row for row in map(json.loads, errors)}

    assert said.returncode == 5
    assert json.loads(said.stdout)["failed"] == 3
    assert list(told) == [60, 81, 82]
    assert (told[60]["id"], told[60]["text"], told[81]["code"]) == ("t60", "a snake", "no_text")
    missing = np.isnan(vectors_in(tmp_path / "o.npy")).any(axis=1)
    assert np.flatnonzero(missing).tolist() == [60, 81, 82]


def test_a_file_of_errors_can_be_embedded_when_they_are_mended(
    fleet: Command, tmp_path: Path
) -> None:
    source = texts_in(tmp_path / "t.jsonl", "fine", "a snake")
    out, errors, again = tmp_path / "o.npy", tmp_path / "e.jsonl", tmp_path / "again.npy"
    ill = ("-b", "scripted", "-m", f"{FIELDS}=context", "--errors", str(errors))

    assert fleet("embed", str(source), "-o", str(out), *ill).returncode == 5
    assert fleet("embed", str(errors), "-o", str(again), *EMBED).returncode == 0
    assert vectors_in(again).shape == (1, 64)


@pytest.mark.parametrize(
    ("model", "words", "code"),
    [
        ("scripted-embed:fail=context", "not the texts", 5),
        ("scripted-embed:fail=auth", "invalid key", 6),
        ("nobody-has-this", "nobody-has-this", 1),
    ],
)
def test_what_is_wrong_with_all_texts_ends_the_run_and_says_so(
    fleet: Command, tmp_path: Path, model: str, words: str, code: int
) -> None:
    source, out = texts_in(tmp_path / "t.txt", *numbered(600)), tmp_path / "o.npy"
    where = () if model == "nobody-has-this" else ("-b", "scripted")
    said = fleet("embed", str(source), "-o", str(out), "-m", model, *where)

    assert words in said.stderr.replace("\n", " ")
    assert said.returncode in {code, 5}
    assert not out.exists()


def test_a_few_texts_of_which_none_can_be_embedded_say_why(fleet: Command, tmp_path: Path) -> None:
    source = texts_in(tmp_path / "t.txt", "one", "two")
    options = ("-b", "scripted", "-m", "scripted-embed:fail=context")
    said = fleet("embed", str(source), "-o", str(tmp_path / "o.npy"), *options)

    assert said.returncode == 5
    assert "exceeds the context" in said.stderr.replace("\n", " ")
    assert [file.name for file in tmp_path.iterdir()] == ["t.txt"]


def test_a_killed_run_goes_on_where_it_was(up: Up, fleet: Command, tmp_path: Path) -> None:
    source = texts_in(tmp_path / "t.txt", *numbered(1000))
    out, whole = tmp_path / "o.npy", tmp_path / "whole.npy"
    run = started(up, source, out, *SLOW)
    wait_until(lambda: rows_done(out))
    run.kill()
    run.communicate(timeout=DEADLINE_S)
    assert not out.exists()

    said = fleet("embed", str(source), "-o", str(out), *SLOW)
    fleet("embed", str(source), "-o", str(whole), *EMBED)

    assert said.returncode == 0
    assert "rows are done" in said.stderr.replace("\n", " ")
    assert np.array_equal(vectors_in(out), vectors_in(whole))
    assert not path_for(out).exists()


def test_a_run_that_goes_on_takes_the_jobs_that_were_under_way(
    up: Up, fleet: Command, tmp_path: Path
) -> None:
    source, out = texts_in(tmp_path / "t.txt", *numbered(100)), tmp_path / "o.npy"
    model = ("-b", "scripted", "-m", "scripted-embed:rate=0.2", "--texts-a-job", "50")
    run = started(up, source, out, *model)
    with Client(up.url) as client:

        def jobs() -> set[str]:
            found = client.jobs(kind="embed", limit=10).jobs
            return {job.id for job in found if job.model == model[3]}

        before = wait_until(lambda: found if len(found := jobs()) == 2 else None)
        run.kill()
        run.communicate(timeout=DEADLINE_S)

        assert run.returncode == -signal.SIGKILL
        assert not out.exists()
        assert fleet("embed", str(source), "-o", str(out), *model).returncode == 0
        assert jobs() == before


def test_ctrl_c_keeps_what_is_done_and_a_second_one_cancels_the_rest(
    up: Up, tmp_path: Path
) -> None:
    source, out = texts_in(tmp_path / "t.txt", *numbered(3000)), tmp_path / "o.npy"
    model = ("-b", "scripted", "-m", "scripted-embed:rate=0.5", "--texts-a-job", "50")
    with Client(up.url) as client, started(up, source, out, *model) as run:

        def running() -> int:
            return len(client.jobs(kind="embed", status="running").jobs)

        wait_until(lambda: rows_done(out) and running() == 4)
        run.send_signal(signal.SIGINT)
        assert run.stderr
        assert any("Ctrl-C again" in line for line in iter(run.stderr.readline, ""))
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()

        assert run.wait(DEADLINE_S) == 130
        assert "the same command continues" in rest.replace("\n", " ")
        assert not out.exists()
        assert running() == 0


def test_another_model_does_not_go_on_with_the_vectors_of_the_first(
    up: Up, fleet: Command, tmp_path: Path
) -> None:
    source, out = texts_in(tmp_path / "t.txt", *numbered(1000)), tmp_path / "o.npy"
    run = started(up, source, out, *SLOW)
    wait_until(lambda: rows_done(out))
    run.kill()
    run.communicate(timeout=DEADLINE_S)
    other = ("embed", str(source), "-o", str(out), *EMBED)

    refused = fleet(*other)

    assert refused.returncode == 2
    assert "--restart" in refused.stderr
    assert fleet(*other, "--restart").returncode == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("t.csv -o o.npy --column nope", "no column 'nope'"),
        ("t.txt -o o.csv", "the output must be one of"),
        ("t.txt -o no/such/folder/o.npy", "is not a folder"),
        ("t.txt -o o.npy --priority soon", "priority"),
        ("t.xlsx -o o.npy", "the file must be one of"),
        ("t.csv -o o.npy --delimiter ;;", "one character"),
        ("t.txt -o o.npy --delimiter ;", "leave --delimiter out"),
    ],
)
def test_a_mistake_is_told_before_anything_is_done(
    fleet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = texts_in(Path(words.split(maxsplit=1)[0]), "one")
    said = fleet("embed", *words.split(), *EMBED)

    assert said.returncode == 2
    assert why in said.stderr.replace("\n", " ")
    assert [file.name for file in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
@pytest.mark.parametrize("other", ["same", "relative", "symlink", "hardlink"])
@pytest.mark.parametrize("option", ["-o", "--errors"])
def test_the_input_is_never_written_over_by_whatever_name(
    fleet: Command, tmp_path: Path, name: str, other: str, option: str
) -> None:
    source = texts_in(tmp_path / name, "apple", "pear")
    before, out = source.read_bytes(), tmp_path / f"out{source.suffix}"
    match other:
        case "same":
            out = source
        case "relative":
            (tmp_path / "sub").mkdir()
            out = tmp_path / "sub" / ".." / name
        case "symlink":
            out.symlink_to(source)
        case _:
            out.hardlink_to(source)
    more = ("-o", str(tmp_path / "other.npy")) if option == "--errors" else ()
    said = fleet("embed", str(source), *more, option, str(out), *EMBED)

    assert said.returncode == 2
    assert "would be overwritten" in said.stderr.replace("\n", " ")
    assert source.read_bytes() == before


def test_a_file_of_errors_is_not_written_over_by_the_errors_of_its_own_run(
    fleet: Command, tmp_path: Path
) -> None:
    source = texts_in(tmp_path / "o.npy.errors.jsonl", "apple")
    said = fleet("embed", str(source), "-o", str(tmp_path / "o.npy"), *EMBED)

    assert said.returncode == 2
    assert source.exists()


def test_a_table_with_semicolons_is_embedded_cell_by_cell(
    up: Up, fleet: Command, tmp_path: Path
) -> None:
    source, out = tmp_path / "t.csv", tmp_path / "o.npy"
    source.write_text('id;text\n41;"apple, pear"\n42;cherry\n')
    said = fleet("embed", str(source), "-o", str(out), *EMBED)

    assert said.returncode == 0
    with Client(up.url) as client:
        wanted = client.embed(["apple, pear", "cherry"], model="scripted-embed")
    assert np.array_equal(vectors_in(out), wanted)


@pytest.mark.parametrize("content", ['id;text\n1;apple\n2;"pear\n3;plum\n', "id^text\n1^apple\n"])
def test_a_table_that_cannot_be_split_is_refused_with_its_line(
    fleet: Command, tmp_path: Path, content: str
) -> None:
    source, out = tmp_path / "t.csv", tmp_path / "o.jsonl"
    source.write_text(content)
    refused = fleet("embed", str(source), "-o", str(out), *EMBED)

    assert refused.returncode == 2
    assert ", line " in refused.stderr
    assert "--delimiter" in refused.stderr
    assert not out.exists()


def test_texts_are_embedded_from_the_time_on_that_is_named(
    up: Up, fleet: Command, tmp_path: Path
) -> None:
    source, out = tmp_path / "t.txt", tmp_path / "o.npy"
    source.write_text("apple\npear\nplum\n")
    at = time.time() + 1.5
    said = fleet(
        "embed", str(source), "-o", str(out), *EMBED, "--at", str(at), "--texts-a-job", "1"
    )  # fmt: skip

    assert said.returncode == 0, said.stderr
    assert time.time() > at
    assert "the first jobs start at 20" in said.stderr
    assert len(vectors_in(out)) == 3

    past = fleet("embed", str(source), "-o", str(out), *EMBED, "--at", str(at), "--restart")

    assert "that time has passed: the first jobs start at once" in past.stderr


def test_a_task_belongs_to_the_run_and_is_named_if_the_model_has_no_prompt_for_it(
    fleet: Command, tmp_path: Path
) -> None:
    source, out = tmp_path / "t.txt", tmp_path / "o.npy"
    source.write_text("one\ntwo\n")
    asked = ("embed", str(source), "-o", str(out), *EMBED)
    said, wrong = fleet(*asked, "--task", "query"), fleet(*asked, "--task", "poetry")

    assert said.returncode == 0, said.stderr
    assert "no prompt for the task query" in said.stderr
    assert (wrong.returncode, "task" in wrong.stderr) == (2, True)
