"""Aliases over HTTP: set, listed and deleted, for every shim; parameters are for admins alone.

Subjects: api_shim/native/aliases.py, api_shim/submission/alias_cache.py,
relay/aliases/alias_store.py.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.keys import keyed
from support.redis_server import RedisServer
from support.shim import CHAT, problem, serving, stage

from api_shim.settings import ShimSettings
from contract.errors import InvalidSetting

PATH = "/api/v1/aliases"


@pytest.fixture
def shim(redis_url: str) -> Iterator[str]:
    """Not the session's, which would keep an alias for other tests."""
    with serving(redis_url, aliases={"given": "m", "claude-*": "given"}) as url:
        yield url


def put(shim: str, name: str, **alias: Any) -> httpx.Response:
    return httpx.put(f"{shim}{PATH}/{name}", json=alias)


async def test_an_alias_is_set_over_one_of_the_settings_and_back(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("scripted", "m")
        told = put(shim, "given", model="other").json()
        listed = (await at.http.get(PATH)).json()["aliases"]
        deleted = await at.http.delete(f"{PATH}/given")
        again = (await at.http.get(f"{PATH}/given")).json()

    assert (told["origin"], told["alias"]["model"]) == ("stored", "other")
    assert [t["problem"] for t in told["targets"]] == ["no model other is known on any backend"]
    assert [each["name"] for each in listed] == ["claude-*", "given"]
    assert deleted.status_code == 204
    assert (
        again["origin"], again["alias"]["model"], again["targets"][0]["problem"],
    ) == ("configured", "m", None)  # fmt: skip


async def test_another_shim_has_it_within_seconds(shim: str, redis_url: str) -> None:
    with serving(redis_url) as other:
        async with stage(other, redis_url) as at:
            await at.announce("scripted", "m")
            put(shim, "soon", model="m")
            async with asyncio.timeout(5):
                while (
                    await at.http.post("/api/v1/jobs/chat", json=CHAT | {"model": "soon"})
                ).is_error:
                    await asyncio.sleep(0.1)
            listed = (await at.http.get(PATH)).json()["aliases"]

    assert [each["name"] for each in listed] == ["soon"]


@pytest.mark.parametrize(
    ("name", "alias", "words"),
    [
        ("given", {"model": "claude", "fallbacks": ["given2"]}, None),
        ("loop", {"model": "loop2", "fallbacks": ["given"]}, None),
        ("a%20b", {"model": "m"}, "visible ASCII"),
        ("x" * 129, {"model": "m"}, "128"),
        ("hot", {"model": "m", "force": {"temperature": 9}}, "temperature"),
        ("hot", {"model": "m", "wait_s": -1}, "wait_s"),
        ("hot", {"model": "m", "falbacks": []}, "rename it to fallbacks"),
        ("hot", {"fallbacks": []}, "model"),
        ("hot", {"model": "m", "default": {"system": "x" * 70_000}}, "65536"),
    ],
)
def test_a_bad_alias_is_refused_in_words(
    shim: str, name: str, alias: dict[str, Any], words: str | None
) -> None:
    told = put(shim, name, **alias)

    assert told.status_code == (200 if words is None else 422)
    assert words is None or words in told.text


def test_a_circle_is_refused_also_through_an_alias_of_the_settings(shim: str) -> None:
    assert put(shim, "one", model="given").status_code == 200
    told = put(shim, "given", model="one")

    assert "in a circle" in problem(told, 422, "invalid_request")["detail"]


def test_what_is_not_stored_cannot_be_deleted(shim: str) -> None:
    configured = httpx.delete(f"{shim}{PATH}/given")
    unknown = httpx.delete(f"{shim}{PATH}/nobody")

    assert "fleet.toml" in problem(configured, 422, "invalid_request")["detail"]
    assert "nobody" in problem(unknown, 404, "alias_not_found")["detail"]
    problem(httpx.get(f"{shim}{PATH}/nobody"), 404, "alias_not_found")


async def test_names_with_slashes_and_stars_are_paths(shim: str) -> None:
    for name in ("org/name:7b", "gpt-*", "revision"):
        assert put(shim, name, model="m").json()["name"] == name
        assert httpx.get(f"{shim}{PATH}/{name}").json()["name"] == name
        assert httpx.delete(f"{shim}{PATH}/{name}").status_code == 204


async def test_only_admins_set_aliases_and_see_their_parameters(own_redis: RedisServer) -> None:
    aliases = {"quiet": {"model": "m", "force": {"system": "secret"}, "fallbacks": [
        {"model": "n", "default": {"system": "secret"}}]}}  # fmt: skip
    with keyed(own_redis.url, aliases=aliases) as fleet:
        async with fleet.caller("b") as caller, fleet.admin as admin:
            seen = await caller.get(f"{PATH}/quiet")
            full = await admin.get(f"{PATH}/quiet")
            for refused in (
                await caller.put(f"{PATH}/quiet", json={"model": "m"}),
                await caller.delete(f"{PATH}/quiet"),
            ):
                problem(refused, 403, "not_allowed")

    assert [each["model"] for each in seen.json()["targets"]] == ["m", "n"]
    assert "secret" not in seen.text
    assert full.json()["alias"]["force"] == {"system": "secret"}


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ({"a": "b", "b": "a"}, "FLEET_ALIASES"),
        ({"a": "b", "b": "a"}, "in a circle: a -> b -> a"),
        ({"a": {"model": "m", "force": {"prompt": "x"}}}, "prompt: an alias sets no such field"),
        ({"a": {"model": "m", "wait": 1}}, "FLEET_ALIASES: a.wait = 1: Extra"),
    ],
)
def test_a_shim_with_an_alias_that_cannot_be_used_does_not_start(
    aliases: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_ALIASES", json.dumps(aliases))
    with pytest.raises(InvalidSetting, match=words):
        ShimSettings()


def test_aliases_of_the_file_are_tables(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet.toml").write_text(
        '[alias.fast]\nmodel = "m"\nfallbacks = ["n"]\n[alias."gpt-*"]\nmodel = "fast"\n'
    )
    monkeypatch.chdir(tmp_path)
    of_file = ShimSettings().aliases
    monkeypatch.setenv("FLEET_ALIASES", '{"slow": "m"}')

    assert {name: each.model for name, each in of_file.items()} == {"fast": "m", "gpt-*": "fast"}
    assert list(ShimSettings().aliases) == ["slow"]
