"""The results of `make bench`: written from its figures, with a verdict for each target."""

import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support.shape import ROOT

from bench.figures import Figures
from bench.reporting.curves import CURVES, drawn
from bench.reporting.report import write
from bench.reporting.rows import ROWS, Row
from bench.reporting.run_record import Record

BENCH = ROOT / "bench"


def test_results_are_what_the_report_makes_of_the_figures(tmp_path: Path) -> None:
    shutil.copy(BENCH / "RESULTS.md", tmp_path)  # sections of other programs stay

    write(tmp_path, Record.read(BENCH))

    for name in ("RESULTS.md", *(f"{curve}.svg" for curve in CURVES)):
        assert (BENCH / name).read_text() == (tmp_path / name).read_text()


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    figures = Figures({"fleet/cpu_ms/16": [2.5, 2.25]}, {"arq": "it is not installed"})
    record = Record({})
    record.put("chats", {"commit": "abc"}, figures)
    record.save(tmp_path)

    found = Record.read(tmp_path)

    assert record.scenarios == found.scenarios
    assert found.figures().missing == {"arq in chats": "it is not installed"}


@pytest.mark.parametrize(
    ("at_least", "values", "verdict"),
    [
        (False, [9.0, 10.0, 99.0], "met"),
        (False, [9.0, 11.0, 99.0], "**not met**"),
        (True, [1.0, 10.0, 11.0], "met"),
        (True, [1.0, 9.0, 99.0], "**not met**"),
        (True, [], "not measured"),
    ],
)
def test_the_median_decides(*, at_least: bool, values: list[float], verdict: str) -> None:
    row = Row("title", "fleet/x", 10, at_least=at_least)

    assert row.verdict(Figures({"fleet/x": values})) == verdict


def test_an_unmeasured_target_is_told_and_draws_no_curve() -> None:
    assert {row.verdict(Figures()) for row in ROWS} <= {"not measured", ""}
    assert "not measured" in drawn(CURVES["latency"], Figures())


def test_a_curve_goes_through_the_medians() -> None:
    figures = Figures({f"fleet/first_ms/{n}": [1.0, n, 2.0 * n] for n in (1, 10, 100)})
    picture = ET.fromstring(drawn(CURVES["latency"], figures))
    line = picture.find("{http://www.w3.org/2000/svg}polyline")

    assert line is not None
    assert line.get("points") == "70.0,310.0 320.0,183.0 570.0,56.0"
