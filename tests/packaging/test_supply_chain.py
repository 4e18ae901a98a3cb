"""Licences that are allowed, and what an audit says when nobody can be asked."""

import json
from typing import Any

import pytest
from support.supply_chain import VENDORED, findings, is_allowed, not_allowed, vendored


def component(*licences: dict[str, Any]) -> dict[str, Any]:
    return {"name": "box", "version": "1", "licenses": list(licences)}


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND (MIT OR GPL-3.0-only)", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR Apache-2.0", True),
        ("LicenseRef-Ours", False),
        ("", False),
    ],
)
def test_an_expression_is_allowed_if_it_can_be_met(expression: str, *, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


def test_a_component_without_an_allowed_licence_is_named() -> None:
    fine = component({"license": {"name": "License :: OSI Approved :: BSD License"}})
    strict = component({"expression": "AGPL-3.0-only"})

    assert not_allowed([fine, strict, component()]) == [
        "box 1: AGPL-3.0-only",
        "box 1: no licence",
    ]


def test_the_modules_of_the_page_are_components() -> None:
    assert {each["name"] for each in vendored()} == set(json.loads(VENDORED.read_text()))
    assert not_allowed(vendored()) == []


def test_an_audit_names_flaws_and_what_it_could_not_ask_for() -> None:
    told = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]},
            {"name": "b", "version": "1", "vulns": []},
            {"name": "c", "skip_reason": "not found"},
        ]
    }

    assert findings(told) == (["a 1: CVE-1, fixed in ['2']"], ["c"])
