"""Texts that are joined while they are let go are those that a join makes.

Subjects: api_shim/bodies/joined_texts.py.
"""

import pytest

from api_shim.bodies.joined_texts import joined_texts


@pytest.mark.parametrize("at_once", [1, 4, 1000])
@pytest.mark.parametrize("between", ["", "\n"])
@pytest.mark.parametrize(
    "texts", [[], [""], ["", ""], ["a", "", "bc", "中" * 5, "", "d" * 9, "😀"]]
)
def test_it_is_a_join(
    texts: list[str], between: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_shim.bodies.joined_texts._AT_ONCE_CHARS", at_once)
    given = list(texts)

    assert joined_texts(given, between) == between.join(texts)
    assert given == []
