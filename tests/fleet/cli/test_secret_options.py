"""Secrets of options come from files: every user of a machine sees its command lines."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fleet.cli.app import app
from fleet.cli.commands.options import api_key_given, backend_given
from workers.backends.dsn import DsnError
from workers.config import configured

DSN = "openai://sk-sesame@api.example/v1"


def written(folder: Path, text: str) -> Path:
    path = folder / "secret"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "dsn", [DSN, "a1111://user:sesame@h", "vertex://project:sesame@", "scripted://sesame@"]
)
def test_a_key_in_a_dsn_on_the_command_line_is_refused_with_the_remedy(dsn: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        backend_given(f"cloud={dsn}")

    assert "cloud=@FILE" in str(refused.value)
    assert "LLM_CLOUD" in str(refused.value)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("option", ["box=ollama://10.0.0.5:11434", "nonsense", "box=what://x"])
def test_a_dsn_without_a_key_stays_as_it_is(option: str) -> None:
    assert backend_given(option) == option


def test_a_dsn_with_a_key_is_read_from_a_file(tmp_path: Path) -> None:
    assert backend_given(f"cloud=@{written(tmp_path, DSN + chr(10))}") == f"cloud={DSN}"


@pytest.mark.parametrize("text", ["", "\n", f"{DSN}\n{DSN}\n", "x" * 9000])
def test_a_file_without_one_line_is_refused_and_not_shown(text: str, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="one line") as refused:
        backend_given(f"cloud=@{written(tmp_path, text)}")

    assert "sesame" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"cloud: .*/gone cannot be read: No such file"):
        backend_given(f"cloud=@{tmp_path / 'gone'}")


def test_an_api_key_is_read_from_a_file_only(tmp_path: Path) -> None:
    key = api_key_given(f"@{written(tmp_path, 'flk_sesame')}")
    with pytest.raises(typer.BadParameter, match="--api-key @FILE") as refused:
        api_key_given("flk_sesame")

    assert key is not None
    assert key.get_secret_value() == "flk_sesame"
    assert "sesame" not in str(refused.value)


def test_variables_and_a_trusted_fleet_toml_may_name_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_TRUST", str(tmp_path))
    path = written(tmp_path, DSN)
    toml = tmp_path / "fleet.toml"
    toml.write_text(f'[backends]\nbeside = "@{path.name}"\n', encoding="utf-8")
    found = configured({"LLM_CLOUD": f"@{path}"}, toml)

    assert [each.name for each in found] == ["beside", "cloud"]
    assert {each.key.get_secret_value() for each in found if each.key} == {"sk-sesame"}


def test_a_variable_whose_file_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DsnError, match=r"LLM_CLOUD: .* cannot be read"):
        configured({"LLM_CLOUD": f"@{tmp_path / 'gone'}"}, tmp_path / "none.toml")


@pytest.mark.parametrize("flag", ["--backend ", "--backend="])
def test_a_unit_of_systemd_takes_no_key_either(flag: str) -> None:
    options = f"--verbose {flag}cloud={DSN}"
    refused = CliRunner().invoke(app, ["service", "install", "--dry-run", "--options", options])

    assert refused.exit_code == 2
    assert "cloud=@FILE" in " ".join(refused.stderr.replace("│", "").split())
    assert "sesame" not in refused.output
