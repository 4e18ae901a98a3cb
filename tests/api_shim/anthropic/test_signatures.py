"""Signatures of thinking carry what they were given, and hold nothing that was not put in."""

import base64

from hypothesis import example, given
from hypothesis import strategies as some

from api_shim.anthropic.signatures import facts_in, sign

text = some.text(some.characters(exclude_categories=["Cs"]))
values = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | text,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(some.dictionaries(text, values, max_size=3))
def test_facts_make_the_round_trip(facts: dict[str, object]) -> None:
    assert facts_in(sign(facts)) == facts


@given(some.text() | some.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
@example("x")
@example("😀")
@example(base64.urlsafe_b64encode(b"[" * 5000).decode())
def test_what_nobody_signed_holds_facts_or_none_and_is_no_error(said: str) -> None:
    assert facts_in(said) is None or said.startswith("fleet.")
    assert isinstance(facts_in(f"fleet.{said}"), dict | None)
