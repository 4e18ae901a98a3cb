"""`fleet trust` lets a fleet.toml set addresses as it sets them now, and no others."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from contract.settings import trusted_list
from fleet.cli.app import app

FILE = """\
url = "http://me:secret@box:8700"
metrics_key = "of-metrics"
give_up_s = 5
[backends]
cloud = "openai://sk-secret@api.openai.com/v1"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("FLEET_TRUST", "FLEET_URL", "FLEET_API_KEY", "FLEET_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.toml").write_text(FILE)
    return tmp_path


def fleet(*words: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, words)
    return told.exit_code, told.output


def test_a_file_is_trusted_with_what_it_says_and_secrets_are_not_shown(folder: Path) -> None:
    before, why = fleet("config", "show")
    trusted, told = fleet("trust")
    after, _ = fleet("config", "show")

    assert (before, trusted, after) == (2, 0, 0)
    assert "fleet trust" in " ".join(why.split())
    assert "box:8700" in told
    assert "secret" not in told
    assert "of-metrics" not in told
    assert trusted_list().stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (("give_up_s = 5", "give_up_s = 6"), True),
        (("box:8700", "evil:8700"), False),
        (("[backends]", "[backends]\nevil = 'openai://evil/v1'"), False),
        (("give_up_s = 5", "insecure = true"), False),
    ],
)
def test_a_change_of_what_is_guarded_must_be_trusted_anew(
    folder: Path,
    change: tuple[str, str],
    counts: bool,  # noqa: FBT001
) -> None:
    fleet("trust", str(folder))
    (folder / "fleet.toml").write_text(FILE.replace(*change))

    assert (fleet("config", "show")[0] == 0) is counts


def test_a_copy_elsewhere_is_not_trusted_and_trust_can_be_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet("trust")
    (folder / "other").mkdir()
    (folder / "other" / "fleet.toml").write_text(FILE)
    assert fleet("config", "show")[0] == 0
    assert fleet("trust", "--remove")[0] == 0
    assert fleet("config", "show")[0] == 2
    fleet("trust")
    monkeypatch.chdir(folder / "other")

    assert fleet("config", "show")[0] == 2


@pytest.mark.parametrize("words", [("config", "show"), ("trust",), ("jobs", "list")])
def test_a_file_that_is_nested_too_deeply_is_an_error(folder: Path, words: tuple[str, ...]) -> None:
    (folder / "fleet.toml").write_text(f"a = {'[' * 3000}{']' * 3000}")
    status, told = fleet(*words)

    assert (status, "it is nested too deeply" in told) == (2, True)


def test_a_file_that_is_none_is_an_error(folder: Path) -> None:
    code, told = fleet("trust", "nothing.toml")

    assert (code, "cannot be read" in told) == (2, True)
