"""`fleet usage`: a table, JSON, and files; a wrong group is named.

Subjects: fleet/cli/commands/usage.py.
"""

import json
from pathlib import Path

from support.up import Command


def test_usage_is_a_table_json_and_a_file(fleet: Command, tmp_path: Path) -> None:
    assert fleet("chat", "one two", "-m", "scripted-echo").returncode == 0
    options = ("--by", "model,kind", "--model", "scripted-echo")
    table = fleet("usage", *options)
    rows = [json.loads(line) for line in fleet("usage", *options, "--json").stdout.splitlines()]
    written = fleet("usage", *options, "--csv", str(tmp_path / "u.csv"))

    assert "scripted-echo" in table.stdout
    assert "tokens in" in table.stderr
    assert (rows[0]["kind"], rows[0]["requests"] > 0) == ("chat", True)
    assert written.returncode == 0
    assert (tmp_path / "u.csv").read_text().startswith("day,tenant,backend,model,kind,requests")


def test_a_wrong_group_is_2_and_names_those_there_are(fleet: Command) -> None:
    failed = fleet("usage", "--by", "colour")

    assert failed.returncode == 2
    assert "day, tenant, backend, model, kind" in failed.stderr
