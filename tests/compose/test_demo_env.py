"""demo.env is the list of all settings: none missing, none unknown, each with its true default."""

import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.settings import FleetSettings
from workers.backend_registry import FACTORIES, build
from workers.backends.dsn import WELL_KNOWN, from_environment
from workers.config import DEFAULT_SLOTS

TOP = Path(__file__).parents[2]
TEXT = (TOP / "compose" / "demo.env").read_text()
LINE = re.compile(r"^(# )?([A-Z][A-Z0-9_]+)=(.*)$", re.MULTILINE)
LINES = [(bool(off), name, value) for off, name, value in LINE.findall(TEXT)]
SETTINGS = [line for line in LINES if line[1].startswith("FLEET_")]
IN_THE_WORKER = {"local", "llama", "openvino"}
"""Types that need a model on this machine, or an extra."""
BACKENDS = {name: value for _, name, value in LINES if not name.startswith("FLEET_")}


def subclasses(kind: type[FleetSettings]) -> Iterator[type[FleetSettings]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def classes() -> list[type[FleetSettings]]:
    for path in [*TOP.glob("*/settings.py"), *TOP.glob("fleet/*/settings.py")]:
        importlib.import_module(".".join(path.relative_to(TOP).with_suffix("").parts))
    return list(dict.fromkeys(subclasses(FleetSettings)))


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("FLEET_"):
            monkeypatch.delenv(name)


def test_it_names_every_setting_once_and_no_other() -> None:
    known = {f"FLEET_{field.upper()}" for each in classes() for field in each.model_fields}

    assert sorted(name for _, name, _ in SETTINGS) == sorted(known)


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_its_values_are_the_defaults(
    kind: type[FleetSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_WORKER_NAME", "the-same")
    defaults = kind()
    for is_off, name, value in SETTINGS:
        if not is_off:
            monkeypatch.setenv(name, value)

    assert kind() == defaults


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_only_what_has_no_default_is_switched_off(kind: type[FleetSettings]) -> None:
    off = {name for is_off, name, _ in SETTINGS if is_off}

    for field, facts in kind.model_fields.items():
        has_default = facts.default_factory is None and facts.default is not None
        assert (f"FLEET_{field.upper()}" not in off) is has_default


def test_every_setting_is_explained_in_the_line_before() -> None:
    lines = TEXT.splitlines()
    for number, line in enumerate(lines):
        if match := LINE.match(line):
            before = lines[number - 1]

            assert before.startswith("# ") or match[2] in WELL_KNOWN


def test_its_backends_can_be_built_and_are_all_there_are() -> None:
    examples = {name: value for name, value in BACKENDS.items() if name not in WELL_KNOWN}
    configs = from_environment(examples)

    # A list of endpoints does not fit into one variable: it stands in fleet.toml.
    assert {config.type for config in configs} | {"endpoints"} == set(FACTORIES)
    assert set(DEFAULT_SLOTS) == set(FACTORIES)
    here = [config for config in configs if config.type not in IN_THE_WORKER]
    assert [build(config).name for config in here] == [config.name for config in here]
    assert set(BACKENDS) - set(examples) == set(WELL_KNOWN)
