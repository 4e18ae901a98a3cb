"""Tokens that nobody would write: each is read rightly, or refused in words; none is an error.

Subjects: api_shim/tokens/token_reader.py.
"""

import asyncio
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from support.token_server import Issuer, token_server

from api_shim.tokens.signing_keys import SigningKeys
from api_shim.tokens.token_reader import CallerToken, TokenReader
from api_shim.tokens.token_settings import TokenSettings
from contract.errors import NotAuthenticated

values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=12),
    lambda inner: (
        some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
usual = settings(max_examples=60)


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with token_server() as server:
        yield server


@pytest.fixture(scope="module")
def chosen(issuer: Issuer) -> TokenSettings:
    return TokenSettings(**issuer.settings(oidc_permissions_claim="scope"))


def read(chosen: TokenSettings, *texts: str) -> list[CallerToken | None]:
    """What a new reader makes of each; None for one that it refuses."""

    async def all_of_them() -> list[CallerToken | None]:
        reader = TokenReader(chosen, SigningKeys(chosen), time.time)
        found: list[CallerToken | None] = []
        for text in texts:
            try:
                found.append(await reader.read(text))
            except NotAuthenticated:
                found.append(None)
        return found

    return asyncio.run(all_of_them())


def part(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@usual
@given(
    texts=some.lists(
        some.text() | some.from_regex(r"ey[A-Za-z0-9_-]{8,40}(\.[\w-]{1,9}){2}"), min_size=1
    )
)
def test_a_text_that_is_no_token_is_refused(chosen: TokenSettings, texts: list[str]) -> None:
    assert set(read(chosen, *texts)) == {None}


@usual
@given(data=some.data())
def test_a_token_of_which_a_character_was_changed_is_refused(
    issuer: Issuer, chosen: TokenSettings, data: some.DataObject
) -> None:
    good = issuer.token()
    at = data.draw(some.integers(0, len(good) - 1))
    other = data.draw(some.sampled_from("AZaz09-_.=/+ \n") | some.characters())
    bad = good[:at] + other + good[at + 1 :]
    (there, known, found) = read(chosen, good, good, bad)

    assert there is not None
    assert there == known
    assert found is None or signature(bad) == signature(good)


def signature(text: str) -> tuple[str, bytes]:
    """What is signed, and the signature: the last character of its base64 has bits to spare."""
    signed, _, last = text.rpartition(".")
    return signed, urlsafe_b64decode(last + "==")


@usual
@given(
    head=some.dictionaries(
        some.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "zip"]), values
    )
)
def test_a_token_with_any_head_is_refused(
    issuer: Issuer, chosen: TokenSettings, head: dict[str, object]
) -> None:
    _, claims, last = issuer.token().split(".")

    assert (
        read(
            chosen,
            f"{part(head)}.{claims}.{last}",
            f"{part({'alg': 'ES256', **head})}.{claims}.{last}",
        )
        == [None] * 2
    )


@usual
@given(
    claims=some.dictionaries(
        some.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "jti"]),
        values,
        min_size=1,
    )
)
def test_claims_of_any_type_are_read_or_refused(
    issuer: Issuer, chosen: TokenSettings, claims: dict[str, object]
) -> None:
    (token,) = read(chosen, issuer.token(**claims))

    if token is not None:
        assert "iss" not in claims
        assert token.tenant == claims.get("sub", "ann")
        assert time.time() < token.expires_at
        assert all(isinstance(each, str) for each in token.permissions or ())
