"""Every kind of key of a fleet that is lived in, damaged: no GET route is an error.

The keys are found by SCAN, so that a new one is damaged, too: a field, entry or member is
replaced by some kind of garbage, or left out. A route may refuse (404, 503), not break.

Subjects: contract/redis_keys.py, relay/connection.py, relay/records.py, relay/log.py.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

import httpx
import pytest
from redis import Redis
from support.batches import echo, jsonl
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.relay import Relay
from support.shim import CHAT, stage

from api_shim.access.route_permissions import NEEDS
from contract import redis_keys
from contract.events import Delta, Failed
from relay.repair.damaged_keys import DamagedKeys

GARBAGE: Final = (
    b"\xff\xfe{", b"", b"null", b"1e999", b"-1", b"nan", b"[]", b"{}", b'{"a":[', b'"\\ud800"',
    b"[" * 5000, b"9" * 400, b"a\x00\x1b[31m\n", b'{"id":7,"v":null,"tenant":{},"at":"x"}',
)  # fmt: skip
UNREAD: Final = frozenset({"/page/{digest}/{path:path}", "/api/v1/overview/events"})
"""No Redis, and without end; /api/v1/overview shows the same."""
SEEDS: Final = 2
ROUNDS: Final = 40
AT_ONCE: Final = 6
"""Keys of different kinds that are damaged together, so that all are in a few minutes."""


class LivedIn(NamedTuple):
    """A fleet with something of everything, and all addresses that show it."""

    shim: Keyed
    redis: Any
    urls: list[str]
    errors: list[str]
    """What is logged as an error."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivedIn]:
    server, errors = RedisServer(tmp_path_factory.mktemp("lived-in")), list[str]()
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda line: errors.append(handler.format(line)[-700:])  # type: ignore[method-assign, assignment]
    # A key of another type is set aside, and named as an error.
    handler.addFilter(lambda line: line.name != DamagedKeys.__module__)
    logging.getLogger().addHandler(handler)
    settings = {"private_webhooks": True, "tenant_tokens_day": 10**9, "key_max_age_s": 30}
    try:
        with keyed(server.url, **settings) as shim:
            ids = asyncio.run(_live(shim, server.url))
            yield LivedIn(shim, Redis.from_url(server.url), [*_urls(ids)], errors)
    finally:
        logging.getLogger().removeHandler(handler)
        server.stop()


def _urls(ids: dict[str, list[str]]) -> Iterator[str]:
    """Of every GET route, with every id that fits into it."""
    for route in NEEDS:
        method, _, path = route.partition(" ")
        if method != "GET" or path in UNREAD:
            continue
        whole = re.sub(r"\{[^}]*\}", "{}", path)
        if "{}" not in whole:
            yield whole
        for each in ids.get(whole, []):
            yield whole.replace("{}", each)


async def _live(shim: Keyed, redis_url: str) -> dict[str, list[str]]:
    async with stage(shim.url, redis_url) as at:
        at.http.headers["authorization"] = f"Bearer {shim.key}"
        await at.announce()
        http, relay = at.http, at.relay

        async def made(path: str, **body: Any) -> dict[str, Any]:
            answer = await http.post(path, json=body)
            assert answer.is_success, answer.text
            return dict(answer.json())

        await http.put("/api/v1/aliases/quick", json={"model": "m", "backend": "scripted"})
        hook = await made("/api/v1/webhooks", url="http://127.0.0.1:9/")
        stored = await made("/v1/responses", model="m", input="hello", background=True)
        jobs = [stored["id"].removeprefix("resp_")]
        await relay.run(await relay.claim(), *[Delta(content=f"w{n} ") for n in range(40)])
        jobs.append((await made("/api/v1/jobs/chat", **CHAT, max_attempts=1))["id"])
        await _fail(relay)
        jobs.append((await made("/api/v1/jobs/chat", **CHAT, metadata={"a": "b"}))["id"])
        claim = await relay.claim()
        running = relay.attempt_log(claim)
        running.append(Delta(content="so far"))
        await running.flush()
        await made("/api/v1/jobs/chat", **CHAT, conversation="c")
        await made("/api/v1/jobs/chat", **CHAT, not_before=time.time() + 86400)
        await made("/api/v1/jobs/chat", **CHAT, after=[jobs[2]])
        form = {"file": ("in.jsonl", jsonl(echo(n, "m") for n in range(2)))}
        file = (await http.post("/v1/files", data={"purpose": "batch"}, files=form)).json()["id"]
        window = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = await made("/v1/batches", input_file_id=file, **window)
        params = {**CHAT, "max_tokens": 9}
        asks = [{"custom_id": "a", "params": params}]
        messages = await made("/v1/messages/batches", requests=asks)
        await http.delete("/api/v1/tenants/gone?confirm=gone")
        await relay.connection.command("RPUSH", "scripted.chat", "garbage")
        await http.get("/api/v1/usage")
    one, dead, _ = jobs
    return {
        "/api/v1/jobs/{}": jobs, "/api/v1/jobs/{}/request": jobs,
        "/api/v1/jobs/{}/events": [one, dead], "/api/v1/dead/{}": [dead],
        "/api/v1/webhooks/{}": [hook["id"]], "/api/v1/webhooks/{}/deliveries": [hook["id"]],
        "/api/v1/aliases/{}": ["quick"], "/api/v1/tenants/{}/deletion": ["gone"],
        "/v1/models/{}": ["m", "quick"], "/v1/responses/{}": [f"resp_{one}"],
        "/v1/responses/{}/input_items": [f"resp_{one}"], "/v1/messages/{}": [f"msg_{dead}"],
        "/v1/files/{}": [file], "/v1/files/{}/content": [file], "/v1/batches/{}": [batch["id"]],
        "/v1/messages/batches/{}": [messages["id"]],
        "/v1/messages/batches/{}/results": [messages["id"]],
    }  # fmt: skip


async def _fail(relay: Relay) -> None:
    """End a job as a dead letter, as a worker does."""
    log = relay.attempt_log(await relay.claim())
    log.append(Failed(code="backend_failed", message="no", dead=True))
    await log.flush()


Change = list[tuple[Any, ...]]
"""Commands."""
Changes = Iterator[tuple[str, Change]]


def _changes(redis: Any, key: bytes) -> Changes:
    """Every way in which a key is damaged, each with its name."""
    yield from OF_TYPE[redis.type(key)](redis, key)
    yield "another type", [("DEL", key), ("GEOADD", key, 1, 1, "x")]
    yield "a list", [("DEL", key), ("RPUSH", key, "x")]


def _garbage(value: bytes) -> Iterator[tuple[str, bytes]]:
    """What may stand in place of a value, each with its name."""
    for each in (*GARBAGE, value[: len(value) // 2]):
        yield ascii(each[:30]), each


def _changes_of_hash(redis: Any, key: bytes) -> Changes:
    for field, value in redis.hgetall(key).items():
        yield f"without {field!r}", [("HDEL", key, field)]
        for name, each in _garbage(value):
            yield f"{field!r}={name}", [("HSET", key, field, each)]
    for name, each in _garbage(b""):
        yield f"{name} in it", [("HSET", key, each, each)]


def _changes_of_sorted_set(redis: Any, key: bytes) -> Changes:
    for name, each in _garbage(b""):
        for score in (0, 1.5, 4e9, "inf", "-inf"):
            yield f"{name} at {score}", [("ZADD", key, score, each)]
    for member in redis.zrange(key, 0, 20):
        for score in ("inf", "-inf", 1e300, -1):
            yield f"{member!r} at {score}", [("ZADD", key, score, member)]


def _changes_of_set(_: Any, key: bytes) -> Changes:
    yield "garbage in it", [("SADD", key, *GARBAGE)]


def _changes_of_list(_: Any, key: bytes) -> Changes:
    for name, each in _garbage(b""):
        yield f"{name} in it", [("LPUSH", key, each)]


def _changes_of_string(redis: Any, key: bytes) -> Changes:
    for name, each in _garbage(redis.get(key) or b""):
        yield f"={name}", [("SET", key, each, "KEEPTTL")]


def _changes_of_stream(redis: Any, key: bytes) -> Changes:
    entries = redis.xrange(key)

    def written(at: int, fields: dict[bytes, bytes]) -> Change:
        log = [(id, fields if number == at else held) for number, (id, held) in enumerate(entries)]
        return [("DEL", key), *(("XADD", key, id, *_flat(held)) for id, held in log)]

    for at in {0, 1, len(entries) - 1}.intersection(range(len(entries))):
        fields = entries[at][1]
        for field, value in fields.items():
            for name, each in _garbage(value):
                yield f"{at} {field!r}={name}", written(at, {**fields, field: each})
        yield f"{at} of another", written(at, {b"\xff": b"\xff"})
    last = entries[-1][1] if entries else {b"f": b"xy"}
    half = {field: value[: len(value) // 2] for field, value in last.items()}
    for name, held in (("half", half), ("another", {b"x": b"y"}), ("bytes", {b"\xff": b""})):
        yield f"{name} behind it", [("XADD", key, "*", *_flat(held))]


def _flat(fields: dict[bytes, bytes]) -> list[bytes]:
    return [word for pair in fields.items() for word in pair]


OF_TYPE: Final[dict[bytes, Callable[[Any, bytes], Changes]]] = {
    b"hash": _changes_of_hash,
    b"stream": _changes_of_stream,
    b"zset": _changes_of_sorted_set,
    b"set": _changes_of_set,
    b"list": _changes_of_list,
    b"string": _changes_of_string,
    b"none": lambda *_: iter(()),
}


def _family(key: bytes) -> str:
    """The kind of a key: without what is only one job's, file's or day's."""
    return re.sub(r"[0-9a-f-]{16,}|\d{4}-\d\d-\d\d|\d{2,}", "*", key.decode(errors="replace"))


@contextmanager
def _mended(redis: Any, key: bytes) -> Iterator[None]:
    kept, ttl_ms = redis.dump(key), max(0, redis.pttl(key))
    try:
        yield
    finally:
        if kept is None:
            redis.delete(key)
        else:
            redis.restore(key, ttl_ms, kept, replace=True)


def _failure(answer: httpx.Response | BaseException, url: str) -> str:
    if isinstance(answer, BaseException):
        return f"{answer!r} {url}"
    if answer.status_code < 500 or answer.status_code in (503, 529):
        return ""
    return f"{answer.status_code} {url} {answer.text[:200]}"


async def _failures(fleet: LivedIn, http: httpx.AsyncClient) -> list[str]:
    asked = [http.get(url, follow_redirects=False) for url in fleet.urls]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    told = [_failure(answer, url) for answer, url in zip(answers, fleet.urls, strict=True)]
    return [each for each in told if each]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_get_is_an_error_whatever_keys_hold(fleet: LivedIn, seed: int) -> None:
    dice = random.Random(seed)
    families: dict[str, list[bytes]] = {}
    for key in sorted(fleet.redis.scan_iter("fleet:*", count=1000)):
        families.setdefault(_family(key), []).append(key)
    families.pop(redis_keys.KEYS)  # of which nobody would be let in
    failing: dict[str, str] = {}
    headers = {"authorization": f"Bearer {fleet.shim.key}"}
    async with httpx.AsyncClient(base_url=fleet.shim.url, headers=headers, timeout=20) as http:
        assert await _failures(fleet, http) == []
        for _ in range(ROUNDS):
            chosen = [dice.choice(families[each]) for each in dice.sample([*families], AT_ONCE)]
            fleet.errors.clear()
            with ExitStack() as mended:
                names = []
                for key in chosen:
                    name, change = dice.choice([*_changes(fleet.redis, key)])
                    mended.enter_context(_mended(fleet.redis, key))
                    for words in change:
                        fleet.redis.execute_command(*words)
                    names.append(f"{key.decode()}: {name}")
                told = await _failures(fleet, http)
            for each in (*told, *fleet.errors):
                failing.setdefault(each[:120], f"{each} with {names}")

    assert failing == {}
