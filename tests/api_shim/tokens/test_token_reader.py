"""Tokens that are read, and those that must not be; and the issuer's keys while it is out of order.

Subjects: api_shim/tokens/token_reader.py, api_shim/tokens/signing_keys.py.
"""

import asyncio
import hmac
import json
import time
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey, RSAKey
from support.token_server import PROBLEMS, Issuer, ec_key, token_server

from api_shim.tokens.signing_keys import SigningKeys
from api_shim.tokens.token_reader import TokenReader
from api_shim.tokens.token_settings import KeysUnavailable, TokenSettings
from contract.errors import InvalidSetting, NotAuthenticated


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with token_server() as server:
        yield server


def reader(issuer: Issuer, **settings: Any) -> TokenReader:
    chosen = TokenSettings(**issuer.settings(**settings))
    return TokenReader(chosen, SigningKeys(chosen), time.time)


def part(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


async def test_a_token_names_its_tenant_and_ends_at_its_expiry(issuer: Issuer) -> None:
    read = reader(issuer, oidc_leeway_s=10)
    token = await read.read(issuer.token(exp=int(time.time()) + 100))

    assert (token.tenant, token.subject, token.permissions) == ("ann", "ann", None)
    assert token.expires_at == pytest.approx(time.time() + 110, abs=3)
    assert read.is_valid(token)


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "EdDSA"])
async def test_every_allowed_algorithm_is_read(algorithm: str, issuer: Issuer) -> None:
    made = {"RS": RSAKey.generate_key, "PS": RSAKey.generate_key}.get(algorithm[:2])
    if made is not None:
        issuer.keys = [made(2048, {"kid": "k"}, private=True)]
    elif algorithm == "EdDSA":
        issuer.keys = [OKPKey.generate_key("Ed25519", {"kid": "k"}, private=True)]  # type: ignore[list-item]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = issuer.token(alg=algorithm)

    assert (await reader(issuer, oidc_algorithms=algorithm).read(text)).tenant == "ann"


@pytest.mark.parametrize(
    ("claims", "settings", "permissions"),
    [
        ({"scope": "openid fleet:chat fleet:models:write chat"}, {}, ("chat", "models:write")),
        ({"scope": ["fleet:use", "other", 7]}, {}, ("use",)),
        ({}, {}, ()),
        ({"scope": {"fleet:admin": True}}, {}, ()),
        (
            {"realm_access": {"roles": ["chat"]}},
            {"oidc_permissions_claim": "realm_access.roles", "oidc_permission_prefix": ""},
            ("chat",),
        ),
        (
            {"https://x.example/roles": "fleet:admin"},
            {"oidc_permissions_claim": "https://x.example/roles"},
            ("admin",),
        ),
    ],
)
async def test_a_claim_names_permissions(
    claims: dict[str, Any], settings: dict[str, Any], permissions: tuple[str, ...], issuer: Issuer
) -> None:
    read = reader(issuer, **{"oidc_permissions_claim": "scope", **settings})

    assert (await read.read(issuer.token(**claims))).permissions == permissions


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://else.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["other", "fleet2"]}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp is no time"),
        ({"exp": "tomorrow"}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"exp": 1e300}, "exp is no time"),
        ({"nbf": 4e9}, "not valid yet"),
        ({"iat": 4e9}, "not valid yet"),
        ({"sub": "Ann Other"}, "no name of a tenant"),
        ({"sub": ["ann"]}, "no name of a tenant"),
        ({"sub": None}, "no name of a tenant"),
        ({"sub": "ann\n"}, "no name of a tenant"),
    ],
)
async def test_a_claim_that_is_wrong_is_named(
    claims: dict[str, Any], reason: str, issuer: Issuer
) -> None:
    with pytest.raises(NotAuthenticated, match=reason):
        await reader(issuer).read(issuer.token(**claims))


async def test_clocks_may_differ_by_the_leeway(issuer: Issuer) -> None:
    now = int(time.time())
    late, early = issuer.token(exp=now - 20), issuer.token(nbf=now + 20)

    assert (await reader(issuer).read(late)).tenant == (await reader(issuer).read(early)).tenant
    for text in (late, early):
        with pytest.raises(NotAuthenticated):
            await reader(issuer, oidc_leeway_s=5).read(text)


async def test_tokens_that_nobody_signed_are_refused(issuer: Issuer) -> None:
    head, claims, signature = issuer.token().split(".")
    other, stranger = issuer.token(sub="boss").split(".")[1], ec_key("first")
    hostile = {
        "none": f"{part({'alg': 'none', 'typ': 'JWT'})}.{claims}.",
        "none, signed": f"{part({'alg': 'none', 'kid': 'first'})}.{claims}.{signature}",
        "other claims": f"{head}.{other}.{signature}",
        "a stranger's": issuer.token(key=stranger),
        "the public key as a secret": _with_public_key_as_secret(issuer, claims),
        "its own key": _with_own_key(issuer),
        "unknown algorithm": f"{part({'alg': ['ES256'], 'kid': 'first'})}.{claims}.{signature}",
        "critical": f"{part({'alg': 'ES256', 'crit': ['b64']})}.{claims}.{signature}",
        "of another type": f"{part({'alg': 'RS256', 'kid': 'first'})}.{claims}.{signature}",
        "for another curve": f"{part({'alg': 'EdDSA', 'kid': 'first'})}.{claims}.{signature}",
        "kid of another type": f"{part({'alg': 'ES256', 'kid': {'a': 1}})}.{claims}.{signature}",
        "no signature": f"{head}.{claims}.",
        "no JSON": f"ey{'A' * 40}.{claims}.{signature}",
        "encrypted": f"{head}.{claims}.{signature}.{signature}.{signature}",
        "huge": issuer.token(groups=["g" * 100] * 1000),
        "huge head": f"{part({'alg': 'ES256', 'kid': 'k' * 5000})}.{claims}.{signature}",
        "unicode": f"{head}.{claims}.ü{signature}",
        "surrogates": f"{head}.{claims}.\ud800{signature}",
    }
    read = reader(issuer)
    accepted = []
    for name, text in hostile.items():
        try:
            await read.read(text)
        except NotAuthenticated:
            continue
        accepted.append(name)

    assert accepted == []
    assert (await read.read(issuer.token())).tenant == "ann"


def _with_public_key_as_secret(issuer: Issuer, claims: str) -> str:
    """What a reader takes that hands the issuer's public key to HMAC as well."""
    signed = f"{part({'alg': 'HS256', 'kid': 'first'})}.{claims}"
    key = issuer.keys[0].as_pem(private=False)
    digest = hmac.digest(key, signed.encode(), "sha256")
    return f"{signed}.{urlsafe_b64encode(digest).decode().rstrip('=')}"


def _with_own_key(issuer: Issuer) -> str:
    """A token whose head brings the key that has signed it."""
    own = ec_key("first")
    head = {"alg": "ES256", "kid": "first", "jwk": own.as_dict(private=False), "jku": "http://x/"}
    claims = {"iss": issuer.url, "aud": "fleet", "sub": "boss", "exp": int(time.time()) + 600}
    return jwt.encode(head, claims, own, ["ES256"])


async def test_a_flood_of_unknown_keys_is_one_fetch(issuer: Issuer) -> None:
    read = reader(issuer, oidc_refresh_s=60)
    await read.read(issuer.token())
    strangers = [issuer.token(key=ec_key(f"k{number}")) for number in range(50)]
    ends = await asyncio.gather(*(read.read(each) for each in strangers), return_exceptions=True)

    assert {type(end) for end in ends} == {NotAuthenticated}
    assert issuer.asked == 1


async def test_a_new_key_is_fetched_and_an_old_one_is_dropped(issuer: Issuer) -> None:
    read = reader(issuer)
    old = issuer.token()
    known = await read.read(old)
    issuer.keys = [ec_key("second")]
    await asyncio.sleep(0.1)
    new = await read.read(issuer.token())

    assert (new.key_id, read.is_valid(known)) == ("second", False)
    assert read.known(old) is None
    with pytest.raises(NotAuthenticated, match="no key of the id"):
        await read.read(old)


@pytest.mark.parametrize("problem", PROBLEMS)
async def test_an_issuer_out_of_order_takes_no_key_away(problem: str, issuer: Issuer) -> None:
    read = reader(issuer)
    await read.read(issuer.token())
    issuer.problem = problem
    await asyncio.sleep(0.1)
    async with asyncio.timeout(7):
        with pytest.raises(NotAuthenticated, match="no key of the id"):
            await read.read(issuer.token(key=ec_key("new")))

    assert (await read.read(issuer.token(sub="bob"))).tenant == "bob"


async def test_without_any_keys_it_is_not_the_token_that_is_wrong(issuer: Issuer) -> None:
    issuer.problem = "refuses"
    read = reader(issuer)
    with pytest.raises(KeysUnavailable):
        await read.read(issuer.token())
    issuer.problem = None
    await asyncio.sleep(0.1)

    assert (await read.read(issuer.token())).tenant == "ann"


async def test_keys_that_cannot_verify_are_not_taken(issuer: Issuer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = RSAKey.generate_key(1024, {"kid": "weak"}, private=True)
        text = issuer.token(key=weak, alg="RS256")
    issuer.keys = [weak, ec_key("first")]
    read = reader(issuer)

    with pytest.raises(NotAuthenticated, match="no key of the id"):
        await read.read(text)


async def test_the_configuration_of_another_issuer_is_not_taken(issuer: Issuer) -> None:
    read = reader(issuer, oidc_issuer=f"{issuer.url}/")

    with pytest.raises(KeysUnavailable):
        await read.read(issuer.token())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"oidc_issuer": "https://i.example"}, "FLEET_OIDC_AUDIENCE"),
        ({"oidc_issuer": "http://i.example", "oidc_audience": "f"}, "https://"),
        ({"oidc_jwks_url": "https://user:key@i.example"}, "https://"),
        ({"oidc_jwks_url": "file:///etc/passwd"}, "https://"),
        ({"oidc_algorithms": "RS256,HS256"}, "RS256"),
        ({"oidc_algorithms": "none"}, "ES256"),
        ({"oidc_algorithms": ""}, "ES256"),
    ],
)
def test_settings_that_are_not_safe_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        TokenSettings(**settings)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "first"},
        {"kty": ["RSA"]},
        {"kty": "EC", "crv": {"a": 1}},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "first"},
        {"kty": "RSA", "n": "", "e": "", "kid": "first"},
        {"kty": "RSA", "n": 5, "e": None, "use": "enc"},
        {},
        7,
        None,
    ],
    ids=repr,
)
async def test_a_key_set_with_nonsense_is_no_key_set(key: Any, issuer: Issuer) -> None:
    issuer.listed = [key]
    with pytest.raises(KeysUnavailable):
        await reader(issuer).read(issuer.token())


async def test_nonsense_beside_a_key_is_passed_over(issuer: Issuer) -> None:
    issuer.listed = [{"kty": ["RSA"]}, 7, issuer.keys[0].as_dict(private=False)]

    assert (await reader(issuer).read(issuer.token())).tenant == "ann"
