"""What another program has put among the names of the storage deletes nothing and is not read.

Subjects: relay/files.py, api_shim/file_storage.py.
"""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest
from redis import Redis
from support.redis_server import RedisServer
from support.shim import serving

from api_shim.file_storage import Storage
from contract import redis_keys
from contract.errors import UnknownFile

NAMES = ("", ".", "..", "../precious", "files", "files/", "files/..", "batches/../../precious", "/")


def stored(url: str) -> str:
    form = {"file": ("a.jsonl", b"{}")}
    answer = httpx.post(f"{url}/v1/files", data={"purpose": "batch"}, files=form)
    assert answer.is_success, answer.text
    told: str = answer.json()["id"]
    return told


def everything(folder: Path) -> set[Path]:
    return {*folder.rglob("*")}


async def test_a_name_that_is_none_has_nothing_deleted(
    own_redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    folder = tmp_path / "a" / "data"
    for each in (
        tmp_path / "a" / "precious",
        tmp_path / "a" / "data.txt",
        folder / "files" / "own",
    ):
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_text("x")
    with (
        serving(own_redis.url, data_dir=folder) as url,
        Redis.from_url(own_redis.url) as redis,
    ):
        kept, deleted = stored(url), stored(url)
        before = {each for each in everything(tmp_path) if each.name != deleted}
        redis.zadd(redis_keys.STORED, dict.fromkeys((*NAMES, b"\xff"), 0))
        redis.zadd(redis_keys.STORED, {f"files/{deleted}": 1})
        httpx.delete(f"{url}/v1/files/{deleted}").raise_for_status()
        async with asyncio.timeout(5):
            while redis_keys.STORED not in caplog.text:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        content = httpx.get(f"{url}/v1/files/{kept}/content").content
        left = everything(tmp_path)

    assert content == b"{}"
    assert before - left == set()
    assert not any(each.name == deleted for each in left)


@pytest.mark.parametrize("name", [*NAMES, "\x00", "a/../../b", ".hidden"])
async def test_no_name_leads_out_of_the_storage(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("x")
    storage = Storage(str(tmp_path / "data"))
    with pytest.raises(UnknownFile):
        await storage.delete(name if name not in {"files", "/"} else f"{name}/..")
    with pytest.raises(UnknownFile):
        await anext(storage.read(name if name != "files" else "files/../../precious"))

    assert (tmp_path / "precious").exists()
