"""Every flood of `make flood`, small: the shim refuses it in few words and serves others meanwhile.

Memory and waiting times have wider bounds here than there, because tests share their machine. Cases
with the same settings and without workers share a shim.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.small_disk import can_mount

from flood.__main__ import CASES, run
from flood.scene import Case, Scene, has_processes, scene

SCALE = 0.05
WORST_S = 2.0

pytestmark = pytest.mark.skipif(
    not has_processes(), reason="this system does not show the memory of a process"
)
Shared = Callable[[Case], Scene]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A shim with some settings, started when it is first asked for."""
    folder: Path = tmp_path_factory.mktemp("flood")
    found: dict[str, Scene] = {}
    with ExitStack() as stack:

        def of(case: Case) -> Scene:
            alone = case.name if case.has_workers else ""
            key = str((alone, case.is_first, case.disk_mib, sorted(case.settings.items())))
            if key not in found:
                at = scene(case, folder / str(len(found)), SCALE)
                found[key] = stack.enter_context(at)
            return found[key]

        yield of


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_shim_survives(case: Case, shared: Shared) -> None:
    if case.disk_mib and not can_mount():
        pytest.skip("NOT RUN: a small disk takes root and `unshare --mount`")
    row = run(case, shared(case))

    assert row.faults(WORST_S) == [], row
