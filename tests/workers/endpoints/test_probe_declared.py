"""Declared facts about models override those that a server lists."""

from pathlib import Path

import pytest

from contract.roster import ModelReport
from workers.backends.dsn import BackendConfig
from workers.config import configured
from workers.endpoints.probe import declared

TABLE = """
[backends.box]
type = "vllm"
url = "http://box:8000"

[backends.box.models."qwen/qwen3-vl"]
traits = ["chat", "vision"]
context_length = 32768
max_output_tokens = 4096

[backends.box.models.hidden]
lacks = ["tools"]
dimension = 1024
"""
LISTED = ModelReport(
    name="qwen/qwen3-vl",
    traits=("chat", "schema"),
    lacks=("vision", "embed"),
    warm=True,
    context_length=8192,
    size_bytes=7,
)


@pytest.fixture(autouse=True)
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_TRUST", str(tmp_path))


def config(tmp_path: Path) -> BackendConfig:
    file = tmp_path / "fleet.toml"
    file.write_text(TABLE)
    [read] = configured({}, file)
    return read


def test_a_declared_fact_wins_and_the_others_stay(tmp_path: Path) -> None:
    report, _ = declared([LISTED], config(tmp_path))

    assert (report.traits, report.lacks) == (("chat", "vision"), ("embed",))
    assert (report.context_length, report.max_output_tokens) == (32768, 4096)
    assert (report.warm, report.size_bytes) == (True, 7)


def test_a_model_that_the_server_does_not_list_is_added(tmp_path: Path) -> None:
    *_, hidden = declared([LISTED], config(tmp_path))

    assert hidden == ModelReport(name="hidden", lacks=("tools",), dimension=1024)


def test_a_declared_lack_removes_the_trait(tmp_path: Path) -> None:
    listed = ModelReport(name="hidden", traits=("chat", "tools"))
    _, report, *_ = declared([LISTED, listed], config(tmp_path))

    assert (report.traits, report.lacks) == (("chat",), ("tools",))


def test_nothing_declared_changes_nothing() -> None:
    plain = BackendConfig.model_validate({"name": "x", "type": "ollama"})

    assert declared([LISTED], plain) == (LISTED,)


def test_what_no_request_can_name_and_endless_lists_are_left_out(tmp_path: Path) -> None:
    names = ["", "n" * 257, *(f"m{number}" for number in range(20_000))]
    reports = declared([ModelReport(name=name) for name in names], config(tmp_path))

    assert (len(reports), reports[0].name, reports[9_999].name) == (10_002, "m0", "m9999")
