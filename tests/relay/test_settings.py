"""A setting that cannot be is one line with name, value and bounds, in every process."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.up import ROOT, environment

from api_shim.settings import ShimSettings
from contract.errors import InvalidSetting
from contract.settings import FleetSettings, bounds_of
from fleet.client.settings import ClientSettings, UpSettings
from relay.settings import RelaySettings
from workers.settings import WorkerSettings

KINDS: tuple[type[FleetSettings], ...] = (ShimSettings, WorkerSettings, ClientSettings, UpSettings)
WRONG = ("nan", "inf", "-inf", "1e30", "-1", "many", "")


def numbers() -> Iterator[tuple[type[FleetSettings], str]]:
    for kind in KINDS:
        for name, field in kind.model_fields.items():
            if name != "retention" and re.search(r"\b(int|float)\b", repr(field.annotation)):
                yield kind, name


NUMBERS = list(numbers())


def told(kind: type[FleetSettings]) -> str:
    with pytest.raises(InvalidSetting) as caught:
        kind()
    return str(caught.value)


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_every_number_has_bounds_on_both_sides(kind: type[FleetSettings], name: str) -> None:
    sides = {limit[0] for limit in bounds_of(kind.model_fields[name])}

    assert sides == {"g", "l"}


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_a_number_out_of_range_is_an_error_of_one_line(
    kind: type[FleetSettings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FLEET_{name.upper()}", value)
    line = told(kind)

    assert line.startswith(f"FLEET_{name.upper()} = {value}: give a ")
    assert " to " in line
    assert "\n" not in line


@pytest.mark.parametrize("value", [*WRONG, "0", "34560001", "None", "1.5", "9" * 5000])
@pytest.mark.parametrize("kind", [ShimSettings, RelaySettings])
def test_a_wrong_retention_is_an_error_of_one_line(
    kind: type[FleetSettings], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_RETENTION", value)
    shown = value if len(value) < 60 else f"{value[:60]}..."

    assert told(kind) == (
        f"FLEET_RETENTION = {shown}: give none, ttl, or seconds from 1 to 34560000"
    )


@pytest.mark.parametrize("value", ["none", "ttl", "1", "34560000"])
def test_a_retention_is_a_word_or_seconds(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_RETENTION", value)

    assert str(RelaySettings().retention) == value


def test_an_error_in_the_file_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fleet.toml").write_text("breaker_failures = 100000\n")

    assert told(WorkerSettings) == (
        "fleet.toml: breaker_failures = 100000: give a whole number from 1 to 1000"
    )


@pytest.mark.parametrize("content", [b"breaker_failures = \n", "x = 1".encode("utf-16")])
def test_a_file_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fleet.toml").write_bytes(content)

    assert told(WorkerSettings).startswith("fleet.toml cannot be read: ")


def test_several_are_one_line_and_no_secret_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_PORT", "70000")
    monkeypatch.setenv("FLEET_INSECURE", "perhaps")
    with pytest.raises(InvalidSetting) as caught:
        ShimSettings(redis_url=b"redis://:hunter2@\xff")  # type: ignore[arg-type]
    line = str(caught.value)

    assert "FLEET_PORT = 70000: give a whole number from 0 to 65535" in line
    assert "FLEET_INSECURE = perhaps: " in line
    assert "redis_url: " in line
    assert "hunter2" not in line


def started(folder: Path, words: tuple[str, ...], **variables: str) -> tuple[int, list[str]]:
    """Exit code of a process, and the lines that it wrote, without those about backends."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = environment(**variables, FLEET_DATA_DIR=str(folder), PYTHONPATH=paths)
    ended = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    written = [*ended.stderr.splitlines(), *ended.stdout.splitlines()]
    return ended.returncode, [line for line in written if not line.startswith("backend ")]


@pytest.mark.parametrize(
    ("words", "variable", "value"),
    [
        (("-m", "workers"), "FLEET_BREAKER_FAILURES", "100000"),
        (("-m", "celery", "-A", "workers.app", "worker"), "FLEET_BREAKER_FAILURES", "100000"),
        (("-m", "api_shim"), "FLEET_KEEPALIVE_S", "inf"),
        (("-m", "fleet", "up", "--port", "0"), "FLEET_BREAKER_FAILURES", "100000"),
        (("-m", "fleet", "up", "--port", "0"), "FLEET_KEEPALIVE_S", "inf"),
        (("-m", "fleet", "up", "--port", "0"), "FLEET_LEASE_S", "0"),
        (("-m", "fleet", "models"), "FLEET_GIVE_UP_S", "-1"),
        (("-m", "fleet", "config", "show"), "FLEET_BATCH_WINDOW", "0"),
    ],
)
def test_no_process_starts_with_it(
    tmp_path: Path, words: tuple[str, ...], variable: str, value: str
) -> None:
    code, lines = started(tmp_path, words, **{variable: value})

    assert code == 2
    assert len(lines) == 1
    assert f"{variable} = {value}: give a " in lines[0]


@pytest.mark.parametrize("url", ["foo://x", "redis://:secret@127.0.0.1:abc/0", "127.0.0.1:6379"])
def test_what_is_no_redis_url_is_one_line_without_its_value(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS_URL", url)
    with pytest.raises(InvalidSetting) as refused:
        RelaySettings()

    assert "FLEET_REDIS_URL" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("words", [("-m", "api_shim"), ("-m", "fleet", "up", "--port", "0")])
def test_no_process_starts_with_an_unknown_storage_of_files(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    code, lines = started(tmp_path, words, FLEET_FILES_URL="bogus://me:secret@box/files")

    assert code == 2
    assert len(lines) == 1
    assert "FLEET_FILES_URL = bogus://***@box/files: give a folder, or a URL with " in lines[0]
    assert "s3, s3a, sftp" in lines[0]


@pytest.mark.parametrize("url", ["/srv/files", "s3://bucket/prefix", "memory://x", "gs://b"])
def test_a_storage_that_fsspec_knows_is_taken(url: str) -> None:
    assert ShimSettings(files_url=url).files_url == url


SIDE = {
    "FLEET_RENEW_S": "below FLEET_LEASE_S",
    "FLEET_WATCHDOG_S": "of at least FLEET_RENEW_S + FLEET_COMMAND_TIMEOUT_S",
}


@pytest.mark.parametrize(
    ("words", "variable", "value", "other"),
    [
        (("-m", "workers"), "FLEET_RENEW_S", "15", "15"),
        (("-m", "celery", "-A", "workers.app", "worker"), "FLEET_RENEW_S", "20", "15"),
        (("-m", "api_shim"), "FLEET_RENEW_S", "20", "15"),
        (("-m", "fleet", "up", "--port", "0"), "FLEET_RENEW_S", "20", "15"),
        (("-m", "workers"), "FLEET_WATCHDOG_S", "8.9", "9"),
        (("-m", "celery", "-A", "workers.app", "worker"), "FLEET_WATCHDOG_S", "3", "9"),
        (("-m", "fleet", "up", "--port", "0"), "FLEET_WATCHDOG_S", "3", "9"),
    ],
)
def test_no_process_starts_with_two_settings_that_contradict_each_other(
    tmp_path: Path, words: tuple[str, ...], variable: str, value: str, other: str
) -> None:
    code, lines = started(tmp_path, words, **{variable: value})

    assert code == 2
    assert len(lines) == 1
    assert f"{variable} = {value}: give a number {SIDE[variable]} = {other}, " in lines[0]


def test_settings_that_agree_again_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_RENEW_S", "20")
    monkeypatch.setenv("FLEET_LEASE_S", "60")

    assert RelaySettings().renew_s == 20


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ('{"gpt-4o": {"inptu": 1}}', "'gpt-4o' has no price 'inptu': the prices are input"),
        ('{"gpt-4o": {"input": -1}}', "'gpt-4o', input: give a number from 0 to 1000000"),
        ('{"gpt-4o": 3}', 'as in {"gpt-4o": {"input": 2.5, "output": 10}}'),
        ("cheap", "give valid JSON"),
    ],
)
def test_a_wrong_price_is_named_with_its_model(
    prices: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_PRICES", prices)
    line = told(RelaySettings)

    assert line.startswith("FLEET_PRICES")
    assert words in line
