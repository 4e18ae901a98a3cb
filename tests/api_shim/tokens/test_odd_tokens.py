"""Rightly signed tokens and key sets with odd content: refused or read, and never an error.

Subjects: api_shim/tokens/token_reader.py, api_shim/tokens/signing_keys.py.
"""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from support.keys import client
from support.redis_server import RedisServer
from support.shim import serving
from support.token_server import Issuer, ec_key, token_server

from api_shim.tokens.signing_keys import SigningKeys
from api_shim.tokens.token_reader import TokenReader
from api_shim.tokens.token_settings import KeysUnavailable, TokenSettings

DEEP = "[" * 5000 + "]" * 5000
LONG = "http://x/" + "x" * 70_000
ODD: dict[str, str] = {
    "deep": DEEP,
    "deep object": '{"a":' * 1200 + "1" + "}" * 1200,
    "a lone surrogate": r'"\ud800"',
    "a surrogate in a key": r'{"\ud800": 1}',
    "NUL": r'"a\u0000b"',
    "controls": r'"a\u001b[31m\r\n\u202e"',
    "huge text": json.dumps("x" * 9000),
    "huge number": "9" * 5000,
    "huge exponent": "1e999",
    "NaN": "NaN",
    "infinity": "-Infinity",
    "null": "null",
    "true": "true",
    "a list": "[[1]]",
    "an object": '{"a": {"b": 1}}',
    "a number": "-0.5e-300",
    "raw controls": '"a\x1b\x00"',
}
CLAIMS = (
    "sub", "iss", "aud", "exp", "nbf", "iat", "scope", "unused", "team", "client", "jti", "azp",
)  # fmt: skip
HEADS: tuple[dict[str, Any], ...] = (
    {"crit": []}, {"crit": ["exp"]}, {"crit": None}, {"kid": "\ud800"}, {"kid": "a\x00b"},
    {"kid": "no\x1b[31m\n"}, {"kid": ["first"]}, {"kid": {}}, {"kid": 10**40}, {"kid": ""},
    {"alg": None}, {"alg": []}, {"alg": {"a": 1}}, {"alg": "\ud800"}, {"alg": float("nan")},
)  # fmt: skip
UNUSED_HEADS: tuple[dict[str, Any], ...] = (
    {"typ": ["JWT"]}, {"typ": {"a": 1}}, {"typ": 7}, {"cty": ["a"]}, {"b64": False}, {"b64": "x"},
    {"zip": "DEF"}, {"x5c": 7}, {"jwk": [1]}, {"jku": {}}, {"x5t": None}, {"odd": [[[]]]},
    {"typ": "\ud800"}, {"odd": float("inf")},
)  # fmt: skip


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with token_server() as server:
        yield server


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    """What is logged."""
    found: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    yield found
    logging.getLogger().removeHandler(handler)


@pytest.fixture(scope="module")
def url(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A shim that reads every claim, and its Redis."""
    server = RedisServer(tmp_path_factory.mktemp("odd-tokens"))
    chosen = issuer.settings(
        oidc_tenant_claim="team", oidc_permissions_claim="scope", oidc_tenants={"*": {"weight": 2}}
    )
    try:
        with serving(server.url, **chosen) as address:
            yield address, server.url
    finally:
        server.stop()


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("claim", CLAIMS)
async def test_a_claim_with_odd_content_is_read_or_refused(
    issuer: Issuer, url: tuple[str, str], lines: list[str], claim: str, odd: str
) -> None:
    text = issuer.signed(issuer.claims(**{"team": '"lab"', claim: ODD[odd]}))
    async with client(url[0], text) as caller:
        answers = [
            await caller.get("/api/v1/caller"), await caller.get("/v1/models"),
            await caller.get("/api/v1/jobs"), await caller.post("/api/v1/jobs/chat", json={}),
        ]  # fmt: skip
    found = {answer.status_code for answer in answers}
    names = b"\n".join(Redis.from_url(url[1]).scan_iter(count=1000))

    assert found == {401} or (claim not in ("iss", "aud", "exp", "team") and 401 not in found)
    assert max(found) < 500
    assert names.isascii()
    assert b"\0" not in names
    assert "Traceback" not in "\n".join(lines)
    assert len(max(lines, default="", key=len)) < 2000


@pytest.mark.parametrize("claims", [b"", b"7", b"[]", b"null", b"{", b"\xff\xfe{}", b'{"a":1}x'])
async def test_claims_that_are_no_object_are_refused(
    issuer: Issuer, url: tuple[str, str], claims: bytes
) -> None:
    async with client(url[0], issuer.signed(claims)) as caller:
        assert (await caller.get("/api/v1/caller")).status_code == 401


@pytest.mark.parametrize("head", HEADS, ids=ascii)
async def test_a_head_with_odd_content_is_refused(
    issuer: Issuer, url: tuple[str, str], head: dict[str, Any]
) -> None:
    async with client(url[0], issuer.signed(issuer.claims(team='"lab"'), **head)) as caller:
        assert (await caller.get("/api/v1/caller")).status_code == 401


@pytest.mark.parametrize("head", UNUSED_HEADS, ids=ascii)
async def test_a_head_with_odd_fields_that_mean_nothing_is_no_error(
    issuer: Issuer, url: tuple[str, str], head: dict[str, Any]
) -> None:
    async with client(url[0], issuer.signed(issuer.claims(team='"lab"'), **head)) as caller:
        assert (await caller.get("/api/v1/caller")).status_code in (200, 401)


async def test_a_subject_with_controls_is_shown_without(
    issuer: Issuer, url: tuple[str, str]
) -> None:
    settings = TokenSettings(**issuer.settings(oidc_tenant_claim="team"))
    read = TokenReader(settings, SigningKeys(settings), time.time)
    token = await read.read(issuer.token(sub="a\x1b\x00\u202e", team="lab"))

    assert (token.tenant, token.subject) == ("lab", r"a\x1b\x00\u202e")


KEY_SETS = (
    DEEP.encode(), b'{"keys":' + DEEP.encode() + b"}", rb'{"keys":[{"kid":"\ud800"}]}',
    b'{"keys":NaN}', b'{"keys":{}}', b'{"keys":["\xff"]}', b"", b"null", b"7", b"[]", b"{" * 9999,
    b'{"keys":[' + b"{}," * 9999 + b"7]}", b'{"keys":"' + b"x" * 300_000 + b'"}',
    b'{"keys":[{"kty":"RSA","n":"' + b"_" * 200_000 + b'","e":"AQAB","kid":"first"}]}',
    b'{"keys":[{"kid":' + b"9" * 5000 + b"}]}",
)  # fmt: skip


@pytest.mark.parametrize("text", KEY_SETS, ids=lambda each: repr(each[:30]))
async def test_a_key_set_that_is_odd_is_no_key_set(text: bytes, lines: list[str]) -> None:
    with token_server() as issuer:
        issuer.keys_text = text
        settings = TokenSettings(**issuer.settings())
        with pytest.raises(KeysUnavailable):
            await TokenReader(settings, SigningKeys(settings), time.time).read(issuer.token())

    assert len(max(lines, default="", key=len)) < 2000


@pytest.mark.parametrize(
    "url",
    [
        7, [], {}, "", "https://", "http://localhost\x00/", "http://localhost:99999/", "http://[::1",
        LONG, "http://127.0.0.1:1/\n\x1b[31m", "http://\u202e/",
        "https://" + "a" * 100_000 + "/", "http://127.0.0.1:abc/",
    ],
    ids=lambda each: ascii(each)[:30],
)  # fmt: skip
async def test_an_address_of_keys_that_is_odd_is_no_address(url: Any, lines: list[str]) -> None:
    with token_server() as issuer:
        issuer.keys_url = f"{issuer.url}/{url[9:]}" if url == LONG else url
        settings = TokenSettings(**issuer.settings())
        with pytest.raises(KeysUnavailable):
            await TokenReader(settings, SigningKeys(settings), time.time).read(issuer.token())

    assert len(max(lines, default="", key=len)) < 2000


ODD_VALUES: tuple[Any, ...] = (
    7, -1, 10**400, 1.5, True, [], ["a"], {}, {"a": 1}, "", "x\x00", "é", "_" * 9000, "A", "AAAA",
    "\x1b[31m\n",
)  # fmt: skip


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda each: repr(each)[:30])
@pytest.mark.parametrize(
    "field", ["kty", "crv", "x", "y", "n", "e", "d", "use", "key_ops", "alg", "x5c", "kid", "oth"]
)
async def test_a_key_with_an_odd_field_harms_no_other_key(
    issuer: Issuer, field: str, value: Any
) -> None:
    second = ec_key("second")
    odd_ec = ec_key("odd")
    odd_rsa = {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "rsa"}
    with token_server() as own:
        own.keys = [second]
        own.listed = [
            {**odd_ec.as_dict(private=False), field: value}, {**odd_rsa, field: value},
            second.as_dict(private=False),
        ]  # fmt: skip
        settings = TokenSettings(**own.settings())
        read = TokenReader(settings, SigningKeys(settings), time.time)
        good = await read.read(own.token())
        found = ""
        try:
            found = (await read.read(own.token(key=odd_ec))).tenant
        except Exception as error:  # noqa: BLE001 - its kind is what is asked
            found = type(error).__name__

    assert good.tenant == "ann"
    assert found in ("ann", "NotAuthenticated")
