"""A fleet.toml may say where keys and requests go, and who may call, only if it is trusted.

Subjects: contract/settings.py, workers/config.py.
"""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr

from api_shim.settings import ShimSettings
from contract.errors import InvalidSetting
from contract.settings import GUARDED, FleetSettings, trusted_list
from fleet.client.async_client import AsyncClient
from fleet.client.settings import ClientSettings, UpSettings
from relay.settings import RelaySettings
from telemetry.settings import LogSettings
from workers.config import configured
from workers.settings import WorkerSettings

CLASSES = (ClientSettings, UpSettings, RelaySettings, ShimSettings, WorkerSettings, LogSettings)
LEAKS = ("url", "key", "dir", "file", "host", "hosts", "address", "origins", "insecure", "control")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FLEET_TRUST", raising=False)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


def settings_of(kind: type[FleetSettings]) -> dict[str, object]:
    return {name: field.annotation for name, field in kind.model_fields.items()}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_address_key_and_folder_is_guarded(kind: type[FleetSettings]) -> None:
    for name, annotation in settings_of(kind).items():
        kinds = {annotation, *get_args(annotation)}
        is_named = name.rsplit("_", 1)[-1] in LEAKS and annotation is not int
        is_place = is_named or bool(kinds & {Path, SecretStr})

        assert not is_place or name in GUARDED


def test_the_document_lists_what_is_guarded() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "hardening.md").read_text(encoding="utf-8")
    listed = text.partition("only if you trust the file: ")[2].partition(". They say")[0]

    assert re.findall(r"`(\w+)`", listed) == sorted(GUARDED)


def test_a_key_does_not_go_to_an_address_that_somebody_elses_file_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "fleet.toml").write_text('url = "http://evil.example"\ngive_up_s = 5\n')
    monkeypatch.setenv("FLEET_API_KEY", "flk_of_mine")

    with pytest.raises(
        InvalidSetting, match=r"fleet.toml sets url.* `fleet trust`.*FLEET_URL"
    ) as e:
        AsyncClient()
    assert "flk_" not in str(e.value)
    monkeypatch.setenv("FLEET_URL", "http://127.0.0.1:1")
    found = ClientSettings()
    assert (found.url, found.give_up_s) == ("http://127.0.0.1:1", 5)


@pytest.mark.parametrize("name", ["URL", "Url", "API_KEY", "api_\N{KELVIN SIGN}ey"])
def test_a_name_in_another_case_is_the_same_setting(folder: Path, name: str) -> None:
    (folder / "fleet.toml").write_text(f'"{name}" = "http://evil.example"\n', encoding="utf-8")

    with pytest.raises(InvalidSetting, match=r"fleet.toml sets (url|api_key), "):
        ClientSettings()


def test_an_untrusted_table_adds_nothing_to_what_a_variable_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "fleet.toml").write_text('[oidc_tenants."*"]\nweight = 900.0\n')
    monkeypatch.setenv("FLEET_OIDC_TENANTS", '{"lab": {"weight": 2}}')

    assert list(ShimSettings().oidc_tenants) == ["lab"]


def test_backends_of_an_untrusted_file_are_not_used(folder: Path) -> None:
    (folder / "fleet.toml").write_text('[backends]\nbox = "vertex://p@evil.example"\n')

    with pytest.raises(InvalidSetting, match=r"sets backends, .*or set LLM_<NAME> instead"):
        configured({})


def test_a_folder_that_the_environment_names_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "fleet.toml").write_text('url = "http://box:8700"\n')
    for trusted, counts in (("/elsewhere", False), (".", False), (f"/elsewhere:{folder}", True)):
        monkeypatch.setenv("FLEET_TRUST", trusted)
        if counts:
            assert ClientSettings().url == "http://box:8700"
        else:
            with pytest.raises(InvalidSetting):
                ClientSettings()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"x": 1}', b"\xff"])
def test_a_damaged_list_trusts_nothing(folder: Path, content: bytes) -> None:
    (folder / "fleet.toml").write_text('url = "http://box:8700"\n')
    trusted_list().parent.mkdir(parents=True)
    trusted_list().write_bytes(content)

    with pytest.raises(InvalidSetting):
        ClientSettings()
