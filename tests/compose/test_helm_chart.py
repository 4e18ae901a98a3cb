"""The Helm chart: its values are checked, what it makes is valid, and a stop leaves time to drain.

With helm (`make helm`) every template is rendered and each object held against the schemas of
Kubernetes; the values and their schema are checked everywhere.
"""

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from support.helm import binary, validator_of

from workers.app import _SPARE_S
from workers.settings import WorkerSettings

CHART = Path(__file__).parents[2] / "compose" / "helm" / "llm-fleet"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
needs_helm = pytest.mark.skipif(
    binary() is None and os.environ.get("LLM_FLEET_HELM") != "require",
    reason="helm is not installed: `make helm`",
)
EVERYTHING: dict[str, Any] = {
    "existingSecret": "backends",
    "redis": {"existingSecret": "redis"},
    "env": {"FLEET_LOG_TTL_S": 3600},
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "imagePullSecrets": [{"name": "registry"}],
    "pdb": {"enabled": True},
    "serviceMonitor": {"enabled": True, "existingSecret": "metrics"},
    "keda": {"existingSecret": "keda"},
    "shim": {
        "replicaCount": 2,
        "filesClaim": "files",
        "ingress": {"enabled": True, "className": "nginx", "hosts": ["fleet.example.org"]},
        "extraEnv": [{"name": "A", "value": "b"}],
    },
    "workers": {
        "box_one": {
            "dsn": "ollama://ollama:11434",
            "terminationGracePeriodSeconds": 3600,
            "keda": {"enabled": True, "maxReplicaCount": 8},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "volumes": [{"name": "models", "emptyDir": {}}],
            "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        },
        "cloud": {
            "existingSecret": "cloud",
            "keda": {"enabled": True, "prometheus": "http://prometheus:9090"},
        },
    },
}


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """As Helm merges values: maps deeply, anything else by replacement."""
    made = copy.deepcopy(base)
    for name, value in change.items():
        inside = isinstance(value, dict) and isinstance(made.get(name), dict)
        made[name] = merged(made[name], value) if inside else value
    return made


@pytest.mark.parametrize("change", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_schema_accepts_the_values(change: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    errors = jsonschema.Draft7Validator(SCHEMA).iter_errors(merged(VALUES, change))

    assert [error.message for error in errors] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shimm": {}}, "shimm"),
        ({"image": {"tagg": "x"}}, "tagg"),
        ({"redis": {"url": "http://x"}}, "http://x"),
        ({"env": {"lower": 1}}, "lower"),
        ({"shim": {"replicaCount": -1}}, "-1"),
        ({"workers": {"Upper": {}}}, "Upper"),
        ({"workers": {"box": {"dsn": "no dsn"}}}, "no dsn"),
        ({"workers": {"box": {"terminationGracePeriodSeconds": 30}}}, "30"),
        ({"workers": {"box": {"keda": {"maxReplicaCount": 0}}}}, "0"),
        ({"serviceMonitor": {"interval": "often"}}, "often"),
    ],
)
def test_the_schema_refuses_what_means_nothing(change: dict[str, Any], words: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=words):
        jsonschema.validate(merged(VALUES, change), SCHEMA)


def test_every_value_is_in_the_schema_and_used_by_a_template() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())

    assert set(VALUES) == set(SCHEMA["properties"]) - {"global"}
    assert [name for name in VALUES if f".Values.{name}" not in templates] == []


def rendered(tmp_path: Path, change: dict[str, Any]) -> list[dict[str, Any]]:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(change))
    command = [str(binary()), "template", "r", str(CHART), "--namespace", "llm", "-f", str(values)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return [each for each in yaml.safe_load_all(told.stdout) if each]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


@needs_helm
@pytest.mark.parametrize("change", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_kubernetes_accepts_every_object(change: dict[str, Any], tmp_path: Path) -> None:
    objects = rendered(tmp_path, change)
    unknown = set()
    for each in objects:
        validator = validator_of(each["apiVersion"], each["kind"])
        if validator is None:
            unknown.add(each["kind"])
        else:
            errors = validator.iter_errors(each)
            assert [f"{each['kind']}: {error.message}" for error in errors] == []

    assert unknown <= {"ScaledObject", "TriggerAuthentication", "ServiceMonitor"}
    assert len(objects) > len(unknown)


@needs_helm
def test_the_schemas_of_kubernetes_refuse_a_field_that_it_does_not_know(tmp_path: Path) -> None:
    shim = of_kind(rendered(tmp_path, {}), "Deployment")["r-llm-fleet-shim"]
    (container,) = shim["spec"]["template"]["spec"]["containers"]
    container["livenesProbe"] = container.pop("livenessProbe")
    errors = validator_of("apps/v1", "Deployment").iter_errors(shim)

    assert ["livenesProbe" in error.message for error in errors] == [True]


@needs_helm
def test_helm_finds_no_fault() -> None:
    told = subprocess.run(
        [str(binary()), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stdout


@needs_helm
def test_a_worker_retires_within_its_grace_period_and_can_still_hand_over(tmp_path: Path) -> None:
    deployments = of_kind(rendered(tmp_path, EVERYTHING), "Deployment")
    pod = deployments["r-llm-fleet-worker-box-one"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    retire = container["lifecycle"]["preStop"]["exec"]["command"]
    left_s = pod["terminationGracePeriodSeconds"] - int(retire[-1])

    assert retire[:3] == ["fleet", "worker", "retire"]
    assert left_s >= WorkerSettings.model_fields["drain_s"].default + _SPARE_S
    assert {each["name"] for each in container["env"]} >= {"FLEET_POD_NAME", "LLM_BOX_ONE", "TZ"}


@needs_helm
def test_a_scaled_worker_follows_the_number_of_the_shim_from_zero(tmp_path: Path) -> None:
    objects = rendered(tmp_path, EVERYTHING)
    deployment = of_kind(objects, "Deployment")["r-llm-fleet-worker-box-one"]
    scaled = of_kind(objects, "ScaledObject")
    (own,) = scaled["r-llm-fleet-worker-box-one"]["spec"]["triggers"]
    (by_prometheus,) = scaled["r-llm-fleet-worker-cloud"]["spec"]["triggers"]

    assert "replicas" not in deployment["spec"]
    assert scaled["r-llm-fleet-worker-box-one"]["spec"]["minReplicaCount"] == 0
    assert own["metadata"] == {
        "url": "http://r-llm-fleet.llm.svc:8700/api/v1/scale?backend=box_one",
        "valueLocation": "workers",
        "targetValue": "1",
        "activationTargetValue": "0",
        "authMode": "bearer",
    }
    assert by_prometheus["metadata"]["activationThreshold"] == "0"
    assert "llmfleet_wanted_workers" in by_prometheus["metadata"]["query"]


@needs_helm
def test_probes_of_the_shim_do_not_depend_on_workers(tmp_path: Path) -> None:
    shim = of_kind(rendered(tmp_path, {}), "Deployment")["r-llm-fleet-shim"]
    (container,) = shim["spec"]["template"]["spec"]["containers"]

    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz?full=true"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


@needs_helm
def test_pods_have_no_rights_they_do_not_need(tmp_path: Path) -> None:
    for deployment in of_kind(rendered(tmp_path, {}), "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]

        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
