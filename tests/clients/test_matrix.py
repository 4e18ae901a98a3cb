"""The table of clients and features fits the tests that it was made of.

Subjects: docs/clients-matrix.md.
"""

from typing import Any

import pytest
from support.client_matrix import (
    CLIENTS,
    COLLECTED,
    FAILED,
    PASSED,
    TABLE,
    Recorder,
    green_in,
    render,
)

TEXT = TABLE.read_text(encoding="utf-8")


def test_each_cell_is_green_and_has_its_tests(request: pytest.FixtureRequest) -> None:
    marked = request.config.stash[COLLECTED]
    if marked is None:
        pytest.skip("only a run of the whole folder knows all marks")

    assert green_in(TEXT) == marked, "make clients"


def test_it_is_what_make_clients_writes_with_the_locked_versions() -> None:
    assert render(dict.fromkeys(green_in(TEXT), PASSED)) == TEXT, "make clients"
    assert FAILED not in TEXT.rpartition("\n\n")[2]


def test_every_client_has_a_cell() -> None:
    assert {client for client, _ in green_in(TEXT)} == set(CLIENTS)


def report(when: Any, outcome: Any) -> pytest.TestReport:
    properties = [("cells", [("curl", "chat")])]
    return pytest.TestReport(
        "a", ("a", 1, "a"), {}, outcome, None, when, user_properties=properties
    )


@pytest.mark.parametrize(
    ("reports", "sign"),
    [
        ([("setup", "passed"), ("call", "passed"), ("teardown", "passed")], PASSED),
        ([("call", "passed"), ("call", "failed"), ("call", "passed")], FAILED),
        ([("setup", "failed")], FAILED),
        ([("call", "passed"), ("teardown", "failed")], FAILED),
        ([("setup", "skipped"), ("call", "passed")], PASSED),
        ([("setup", "skipped"), ("call", "skipped")], None),
    ],
)
def test_one_failure_makes_a_cell_red(reports: list[tuple[str, str]], sign: str | None) -> None:
    recorder = Recorder()
    for when, outcome in reports:
        recorder.pytest_runtest_logreport(report(when, outcome))

    assert recorder.cells().get(("curl", "chat")) == sign
