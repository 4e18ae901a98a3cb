"""Rules and dashboards use metrics that the fleet serves; each alert has tests of promtool."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.prometheus import promtool
from support.shape import ROOT

from telemetry.families import FAMILIES

FOLDER = ROOT / "compose" / "monitoring"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
OVERLAY = yaml.safe_load((ROOT / "compose" / "compose.monitoring.yaml").read_text())
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
LABELS = {
    name + end: {*family.labels, *(("le",) if end == "_bucket" else ())}
    for family in FAMILIES
    for name in family.names
    for end in (("_bucket", "_count", "_sum") if family.type == "histogram" else ("",))
}
"""Every name that can be queried, with its labels."""
OF_PROMETHEUS = {"instance", "job"}
FOREIGN = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in read(path)["panels"] if panel["type"] != "row"]


def recorded(name: str) -> set[str]:
    """Labels of a recording rule: those that its outermost `by` keeps."""
    (rule,) = [rule for rule in RULES if rule.get("record") == name]
    kept = re.search(r"by \(([^)]*)\)", rule["expr"])
    assert kept is not None
    return {label.strip() for label in kept[1].split(",")} - {"le"}


def selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Names of metrics in an expression, each with the labels that it is selected by."""
    for name, _, braces in re.findall(r"\b((?:llmfleet|process|up)[\w:]*)\b({([^}]*)})?", expr):
        yield name, set(re.findall(r"(\w+)\s*[=!]~?", braces))


def unknown(expr: str) -> list[str]:
    found = []
    for name, labels in selectors(re.sub(r'"[^"]*"', '""', expr)):
        if name in FOREIGN:
            continue
        known = recorded(name) if ":" in name else LABELS.get(name)
        if known is None or not labels <= known | OF_PROMETHEUS:
            found.append(f"{name}{labels}")
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_uses_metrics_that_are_served(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"]) == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_uses_metrics_that_are_served(path: Path) -> None:
    for panel in panels(path):
        for target in panel["targets"]:
            assert unknown(target["expr"]) == [], panel["title"]
    for variable in read(path)["templating"]["list"]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        assert label in LABELS[name]


def test_a_name_that_is_not_served_is_found() -> None:
    assert unknown('rate(llmfleet_job_total{queue="x"}[5m])') == ["llmfleet_job_total{'queue'}"]
    assert unknown('llmfleet_dead_letters{queue=~"$queue"}') == ["llmfleet_dead_letters{'queue'}"]
    assert unknown('max by (queue) (llmfleet_waiting_jobs{queue="a", instance="b"})') == []


def test_prometheus_can_parse_every_panel(tmp_path: Path) -> None:
    expressions = [
        re.sub(r"\$\w+", "x", target["expr"])
        for path in DASHBOARDS
        for panel in panels(path)
        for target in panel["targets"]
    ]
    rules = [{"record": f"panel:{n}", "expr": each} for n, each in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))

    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", str(file))


def test_dashboards_have_ids_of_their_own_and_the_provisioned_source() -> None:
    source = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())
    (uid,) = [each["uid"] for each in source["datasources"]]

    assert sorted(read(path)["uid"] for path in DASHBOARDS) == [path.stem for path in DASHBOARDS]
    for path in DASHBOARDS:
        ids = [panel["id"] for panel in read(path)["panels"]]
        assert len(ids) == len(set(ids))
        assert {panel["datasource"]["uid"] for panel in panels(path)} == {uid}


def test_compose_mounts_what_is_there() -> None:
    services = OVERLAY["services"]
    mounts = [*services["prometheus"]["volumes"], *services["grafana"]["volumes"]]
    sources = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]

    assert sources
    assert [each for each in sources if not (ROOT / "compose" / each).exists()] == []


def test_the_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(FOLDER / "rules.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(FOLDER / "rules_test.yml"))


def test_every_alert_is_tested_silent_and_firing() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in RULES if "alert" in rule}

    assert {case["alertname"] for case in cases if "exp_alerts" in case} == alerts
    assert {case["alertname"] for case in cases if "exp_alerts" not in case} == alerts
