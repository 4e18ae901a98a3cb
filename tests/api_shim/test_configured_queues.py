"""Run windows of a configuration are set when a shim starts, and not again when it restarts.

Subjects: api_shim/queue_upkeep.py, api_shim/settings.py.
"""

import asyncio
import time
import tomllib
from pathlib import Path

import httpx
import pytest
from support.shim import serving

from api_shim.settings import ShimSettings
from contract.errors import InvalidSetting
from fleet.cli.commands.config import _origin

WINDOWS = "mon-sun 00:00-24:00 Europe/Berlin"


def until(url: str, windows: list[str]) -> None:
    give_up_at = time.monotonic() + 10
    while True:
        found = httpx.get(f"{url}/api/v1/queues").json()["queues"]
        if {"box.chat": windows} == {each["name"]: each["windows"] for each in found}:
            return
        assert time.monotonic() < give_up_at, found
        time.sleep(0.02)


async def test_a_shim_sets_them_when_it_starts_and_leaves_what_an_admin_changed(
    redis_url: str,
) -> None:
    queues = {"box.chat": {"windows": [WINDOWS]}}
    path = "/api/v1/queues/box.chat/windows"
    with serving(redis_url, queues=queues) as url:
        await asyncio.to_thread(until, url, [WINDOWS])
        changed = httpx.put(url + path, json={"windows": ["22:00-06:00 UTC"]})
    with serving(redis_url, queues=queues) as url:
        await asyncio.sleep(0.3)
        await asyncio.to_thread(until, url, ["22:00-06:00 UTC"])
    with serving(redis_url, queues={"box.chat": {"windows": []}}) as url:
        await asyncio.to_thread(until, url, [])

    assert changed.status_code == 200


def test_the_file_has_a_table_for_each_queue_and_mistakes_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "fleet.toml"
    file.write_text(f'[queue."box.chat"]\nwindows = ["{WINDOWS}"]\n')
    settings, told = ShimSettings(), _origin("queues", tomllib.loads(file.read_text()))
    file.write_text(f'[queue."box.chat"]\nwindows = "{WINDOWS}"\n')
    assert ShimSettings() == settings
    file.write_text('[queue."box.chat"]\nwindows = ["at night"]\n')
    with pytest.raises(InvalidSetting, match=r"box\.chat.*'at night' is no run window") as wrong:
        ShimSettings()
    file.write_text("[queue.box]\nwindows = []\n")
    with pytest.raises(InvalidSetting, match="box"):
        ShimSettings()

    assert settings.queues["box.chat"].windows == (WINDOWS,)
    assert "fleet.toml: queue: box.chat" in str(wrong.value)
    assert told == "fleet.toml"
