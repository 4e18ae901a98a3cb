"""Cursors that nobody wrote are refused in words, never an error; ours are read.

Subjects: api_shim/native/usage.py, api_shim/native/jobs.py, api_shim/anthropic/stored_messages.py.
"""

import base64
import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as some

from api_shim.anthropic.stored_messages import cursor_of
from api_shim.http.problems import Refusal
from api_shim.native.jobs import check_cursor
from api_shim.native.usage import _cursor, _text

values = some.recursive(
    some.none() | some.booleans() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=2),
    max_leaves=5,
)
coded = values.map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode())
texts = some.text() | coded | some.from_regex(r"[-+]?[0-9_]{1,5}(\.[0-9]{0,3})?(e[0-9]{1,4})?|nan")


def read_or_refused(read: Callable[[], Any]) -> Any:
    """What it reads; None if it is refused in words that quote a bounded part of it."""
    try:
        return read()
    except Refusal as refusal:
        words = str(refusal)
    assert 0 < len(words) < 500
    return None


@given(texts, some.integers(1, 3))
@example("8J+YgA==", 1)
@example("[" * 5000, 1)
def test_a_cursor_of_usage_holds_as_many_names_as_are_asked_for(text: str, length: int) -> None:
    names = read_or_refused(lambda: _cursor(text, length))

    assert names is None or (len(names) == length and all(isinstance(it, str) for it in names))


@given(some.lists(some.text(some.characters(exclude_categories=["Cs"])), min_size=1, max_size=3))
def test_every_cursor_of_usage_is_read(names: list[str]) -> None:
    assert _cursor(_text(tuple(names)), len(names)) == tuple(names)


@given(texts)
@example("1e999")
@example("\u0661")
def test_a_cursor_of_jobs_is_a_time(text: str) -> None:
    with suppress(Refusal):
        check_cursor(text)

        assert math.isfinite(float(text))
        assert float(text) >= 0


@given(texts)
def test_a_cursor_of_a_message_is_an_id_of_an_event(text: str) -> None:
    id = read_or_refused(lambda: cursor_of(text, "after"))

    assert id is None or id == tuple(map(int, text.partition(".")[0].split("-")))
