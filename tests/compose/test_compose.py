"""The containers' files: valid, one image whose commands are the Procfile's, no secrets.

`docker compose config` judges the merged files where the plugin is installed; everywhere, each
file is held against compose-spec.json, the official schema of github.com/compose-spec/compose-spec
(Apache-2.0), unchanged.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from api_shim.settings import ShimSettings
from fleet.local.process import commands
from workers.app import _SPARE_S
from workers.settings import WorkerSettings

TOP = Path(__file__).parents[2]
FOLDER = TOP / "compose"
BASE = FOLDER / "compose.yaml"
WITH_GPU = sorted(FOLDER.glob("compose.*-gpu.yaml"))
OVERLAYS = sorted(set(FOLDER.glob("compose.*.yaml")) - set(WITH_GPU))
MONITORING = FOLDER / "compose.monitoring.yaml"
SCHEMA = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
HAS_COMPOSE = (
    shutil.which("docker") is not None
    and subprocess.call(["docker", "compose", "version"], stderr=subprocess.DEVNULL) == 0
)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def services() -> dict[str, dict[str, Any]]:
    return dict(read(BASE)["services"])


def workers() -> dict[str, dict[str, Any]]:
    return {name: each for name, each in services().items() if name.startswith("worker")}


OURS = ["shim", *workers()]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("path", [BASE, *OVERLAYS, *WITH_GPU], ids=lambda path: path.name)
def test_every_file_fits_the_official_schema(path: Path) -> None:
    errors = jsonschema.validators.validator_for(SCHEMA)(SCHEMA).iter_errors(read(path))

    assert [error.message for error in errors] == []


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_has_no_rights_it_does_not_need(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]  # and Docker's seccomp profile
    assert not {"privileged", "cap_add", "pid", "network_mode"} & service.keys()


def test_the_schema_refuses_what_compose_does_not_know() -> None:
    document = read(BASE)
    document["services"]["shim"]["comand"] = []

    with pytest.raises(jsonschema.ValidationError, match="comand"):
        jsonschema.validate(document, SCHEMA)


@pytest.mark.skipif(not HAS_COMPOSE, reason="docker compose is not installed: schema only")
@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=str)
def test_docker_compose_accepts_the_merged_files(overlay: Path | None) -> None:
    files = [BASE, *([overlay] if overlay else [])]
    options = [word for path in files for word in ("-f", str(path))]
    told = subprocess.run(
        ["docker", "compose", *options, "--profile", "*", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (told.returncode, told.stderr) == (0, "")


def test_overlays_add_to_workers_that_exist_and_in_the_same_profile() -> None:
    for path in set(OVERLAYS) - {MONITORING}:
        (worker, change), (_, server) = read(path)["services"].items()

        assert set(change) == {"environment", "depends_on"}
        assert server["profiles"] == workers()[worker]["profiles"]


def test_every_server_can_have_the_gpus_of_the_host() -> None:
    plain = {path.name: set(read(path)["services"]) for path in OVERLAYS}
    for path in WITH_GPU:
        ((server, change),) = read(path)["services"].items()
        (device,) = change["deploy"]["resources"]["reservations"]["devices"]

        assert server in plain[path.name.replace("-gpu", "")]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert len(WITH_GPU) == len([path for path in OVERLAYS if path != MONITORING])


@pytest.mark.parametrize("name", OURS)
def test_the_command_is_the_line_of_the_procfile(name: str) -> None:
    (command,) = services()[name]["command"]

    assert command.replace("$$", "$") == commands()[name]


def test_every_line_of_the_procfile_is_a_service() -> None:
    assert set(services()) == set(commands())


def test_every_process_runs_the_one_image() -> None:
    assert {services()[name]["image"] for name in OURS} == {"llm-fleet:local"}


def test_every_worker_is_a_profile_of_its_own() -> None:
    profiles = [each["profiles"] for each in workers().values()]

    assert len({profile for (profile,) in profiles}) == len(profiles)


@pytest.mark.parametrize(
    "words", ["--appendonly yes", '--save ""', "--maxmemory-policy noeviction"]
)
def test_redis_keeps_what_the_embedded_server_keeps(words: str) -> None:
    in_container = " ".join(word or '""' for word in services()["redis"]["command"])

    assert words in in_container
    assert words in commands()["redis"]


def test_redis_keeps_its_data_when_its_container_goes() -> None:
    assert services()["redis"]["volumes"] == ["redis:/data"]
    assert "redis" in read(BASE)["volumes"]


def test_workers_wait_for_a_healthy_redis() -> None:
    for each in workers().values():
        assert each["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_a_worker_has_longer_to_stop_than_it_takes_to_drain() -> None:
    drain_s = WorkerSettings.model_fields["drain_s"].default + _SPARE_S

    for each in workers().values():
        assert seconds(each["stop_grace_period"]) > drain_s


def test_the_shim_has_longer_to_stop_than_its_requests() -> None:
    needed_s = ShimSettings.model_fields["shutdown_s"].default

    assert seconds(services()["shim"]["stop_grace_period"]) > needed_s


def test_workers_reach_backends_on_the_host() -> None:
    for each in workers().values():
        assert each["extra_hosts"] == ["host.docker.internal:host-gateway"]


def test_the_port_is_the_same_everywhere_and_for_this_machine_only() -> None:
    port, shim = ShimSettings.model_fields["port"].default, services()["shim"]

    assert shim["environment"]["FLEET_PORT"] == str(port)
    assert shim["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"EXPOSE {port}\n" in (FOLDER / "Dockerfile").read_text()


def test_the_shim_makes_a_key_and_is_insecure_nowhere() -> None:
    shim = services()["shim"]

    assert shim["environment"]["FLEET_FIRST_KEY"] == "true"
    assert "FLEET_HOSTS" in shim["environment"]
    assert all(port.startswith("127.0.0.1:") for port in shim["ports"])
    for path in (BASE, *OVERLAYS, *WITH_GPU):
        assert "INSECURE" not in path.read_text()


def test_everything_has_a_health_check() -> None:
    for path in (BASE, *OVERLAYS):
        for name, each in read(path)["services"].items():
            assert "healthcheck" in each or name in services()
    for each in services().values():
        assert each["healthcheck"]["test"][0] == "CMD"


def test_keys_of_backends_are_kept_from_the_shim() -> None:
    assert services()["shim"]["env_file"] == ["demo.env"]


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    if path.is_file():
        keys = re.findall(
            r"://([^\s/@{}]+)@|(?i:password|token|secret)[=:] *(\S+)", path.read_text()
        )

        assert [key for pair in keys for key in pair if key not in {"", "<key>", "[key"}] == []
