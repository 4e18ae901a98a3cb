"""Each test of a client carries the cells of docs/clients-matrix.md that it is for."""

from pathlib import Path

import pytest
from support.client_matrix import COLLECTED, cells_of

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before others deselect what they do not want."""
    ours = [item for item in items if item.path.parent == HERE]
    for item in ours:
        item.user_properties.append(("cells", cells_of(item)))
    is_whole = {item.path for item in ours} == {*HERE.glob("test_*.py")}
    found = {cell for item in ours for cell in cells_of(item)}
    config.stash[COLLECTED] = found if is_whole else None
