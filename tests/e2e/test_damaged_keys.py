"""Whatever stands at a key of ARCHITECTURE's table, no surface fails and no process ends.

One fleet of two tenants. Each key family is damaged in turn: by a key of another type, then by
garbage within a key of the right type. It is mended before the next one.

Subjects: contract/redis_keys.py, relay/connection.py.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import httpx
import pytest
from redis import Redis
from support.batches import echo, jsonl
from support.keys import Keyed, keyed
from support.processes import WorkerProcess, worker
from support.redis_server import RedisServer

from contract import redis_keys

QUICK: Final = {
    "FLEET_LEASE_S": "3", "FLEET_RENEW_S": "0.2", "FLEET_REAP_S": "0.2", "FLEET_WATCHDOG_S": "8",
    "FLEET_COMPACT_AFTER_S": "0.2", "FLEET_REPORT_S": "0.3",
    "LLM_SCRIPTED": "scripted://?slots=16",
}  # fmt: skip
WORDS: Final = [{"role": "user", "content": "tell"}]
CHAT: Final = {"model": "scripted-story:chunks=2", "backend": "scripted", "messages": WORDS}
ENDLESS: Final = CHAT | {"model": "scripted-story:chunks=99999,rate=5"}
EMBED: Final = {"model": "scripted-embed", "backend": "scripted", "input": ["a"]}
PULL: Final = {"backend": "scripted", "model": "scripted-story"}
GARBAGE: Final = (b"\xff\xfe{garbage", b'{"a": [', b"", b"no-id")
SURFACES: Final = (
    "/readyz", "/healthz", "/metrics", "/metrics/targets", "/api/v1/jobs",
    "/api/v1/jobs?status=running", "/api/v1/jobs/scheduled", "/api/v1/dead", "/api/v1/dead/groups",
    "/api/v1/dead/messages", "/api/v1/usage", "/api/v1/usage?group_by=model",
    "/api/v1/usage/limits", "/api/v1/caller", "/api/v1/webhooks", "/api/v1/backends",
    "/api/v1/models", "/api/v1/workers", "/api/v1/aliases", "/api/v1/queues", "/api/v1/scale",
    "/api/v1/overview", "/api/v1/audit", "/api/v1/audit?refused=true", "/api/v1/keys",
    "/api/v1/limits", "/api/tags", "/api/ps", "/v1/models", "/v1/files", "/v1/batches",
    "/v1/messages/batches",
)  # fmt: skip

OF_A_TENANT: Final = (
    "/api/v1/jobs", "/api/v1/jobs/scheduled", "/api/v1/dead", "/api/v1/usage",
    "/api/v1/usage/limits", "/api/v1/webhooks", "/v1/files", "/v1/batches",
)  # fmt: skip
NOW_AND_THEN: Final = {
    "fleet:metrics:sequence:<process>": "a process writes it with its next numbers",
}
"""Keys that may not be there yet, and that no process reads under another name."""
QUIET: Final = {
    "fleet:q:<queue>:line:<model>": "its name is made within a script, whose error names no key",
    "fleet:q:<queue>:clocks": "the next job of a queue where none waits begins it anew",
    "fleet:q:<queue>:drained:<minute>": "it is begun anew by the next job that ends",
    "fleet:q:<queue>:behind": "a claim that finds it so deletes it, and others fill it anew",
    "fleet:worker:<worker>:report": "its worker writes it anew with its next change",
    "fleet:backend:<backend>:known": "read while its backend has no live worker only",
    "fleet:residence:<backend>:<model>": "only workers with models in their own memory use it",
    "fleet:maintainer": "a worker that renews it writes it anew",
    "fleet:webhooks:deliverer": "a shim that renews it writes it anew",
    "fleet:deletions:eraser": "a shim that renews it writes it anew",
}
"""Why no process can notice, or needs to, that such a key is damaged."""
UNAVAILABLE: Final = (503, 529)
"""529 is Anthropic's 503."""
OF_ONE_TENANT: Final = frozenset(
    {"job_id", "tenant", "digest", "conversation", "receiver", "webhook", "batch_id", "file_id"}
)  # fmt: skip
"""What is in the names of keys that no other tenant's job needs."""


class Family(NamedTuple):
    """A row of the table of keys."""

    key: str
    """As in `fleet:j:<job_id>:record`."""
    type: str

    @property
    def pattern(self) -> str:
        """For KEYS."""
        return re.sub(r"<[^>]*>", "*", self.key)

    @property
    def is_of_one_tenant(self) -> bool:
        return not OF_ONE_TENANT.isdisjoint(re.findall(r"<([^>]*)>", self.key))


def families() -> Iterator[Family]:
    """Of the document, so that a new one is damaged, too."""
    text = Path("ARCHITECTURE.md").read_text()
    table = text.partition("## Redis keys")[2].partition("\n## ")[0]
    for line in table.splitlines():
        if line.startswith("| `"):
            _, names, type_, *_ = line.split("|")
            for key in re.findall(r"`([^`]+)`", names):
                yield Family(key, type_.strip().removesuffix(", channel"))


FAMILIES: Final = tuple(each for each in families() if each.type not in {"", "any"})
"""But for `fleet:damaged:<key>`, which nothing reads."""


class Damaged:
    """The fleet, what is in its Redis, and what its processes log."""

    def __init__(self, shim: Keyed, one: WorkerProcess, redis: Redis, lines: list[str]) -> None:
        self.shim, self.worker, self.redis, self._lines = shim, one, redis, lines
        self.red_key, self.blue_key = (shim.issue(name)["key"] for name in ("red", "blue"))
        self.names: dict[str, str] = {}

    def logged(self) -> tuple[int, int]:
        """How much is in the logs, for `names_one_of`."""
        return len(self.worker.text()), len(self._lines)

    def names_one_of(self, keys: list[str], since: tuple[int, int]) -> bool:
        """Whether a log has one of these keys since then."""
        log = self.worker.text()[since[0] :] + "\n".join(self._lines[since[1] :])
        return any(re.search(rf"(?<![\w:.]){re.escape(key)}(?![\w:.])", log) for key in keys)

    def client(self, key: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.shim.url, headers={"authorization": f"Bearer {key}"}, timeout=15
        )

    def keys(self, family: Family) -> list[str]:
        """Those of the tenant red and of all, by example if there are none."""
        found = sorted(key.decode() for key in self.redis.keys(family.pattern))
        mine = [
            key for key in found
            if "blue" not in key and key.count(":") == family.key.count(":")
            and not key.startswith("_kombu")
        ]  # fmt: skip
        return mine[-3:] or [re.sub(r"<([^>]*)>", lambda m: self.names[m[1]], family.key)]

    @contextmanager
    def mended(self, keys: list[str]) -> Iterator[None]:
        kept = [(key, self.redis.dump(key), max(0, self.redis.pttl(key))) for key in keys]
        try:
            yield
        finally:
            for key, text, ttl_ms in kept:
                if text is None:
                    self.redis.delete(key)
                else:
                    self.redis.restore(key, ttl_ms, text, replace=True)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Damaged]:
    folder, lines = tmp_path_factory.mktemp("damaged"), list[str]()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    settings = {
        "data_dir": folder / "data", "reap_s": 0.2, "renew_s": 0.2, "lease_s": 3, "report_s": 0.3,
        "private_webhooks": True, "tenant_tokens_day": 10**9,
    }  # fmt: skip
    with ExitStack() as stack:
        server = RedisServer(folder)
        stack.callback(server.stop)
        redis = stack.enter_context(Redis(port=server.port))
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        shim = stack.enter_context(keyed(server.url, **settings))
        one = stack.enter_context(worker(server.url, folder, **QUICK))
        at = Damaged(shim, one, redis, lines)
        asyncio.run(_lived_in(at))
        yield at


async def _lived_in(at: Damaged) -> None:
    """Do what leaves keys of most families behind."""
    async with at.client(at.shim.key) as boss, at.client(at.red_key) as red:
        async with asyncio.timeout(60):
            while not any(
                each["healthy"] for each in (await boss.get("/api/v1/backends")).json()["backends"]
            ):
                assert at.worker.popen.poll() is None, at.worker.text()
                await asyncio.sleep(0.1)

        async def job(kind: str = "chat", **fields: Any) -> str:
            body = (CHAT if kind == "chat" else {"backend": "scripted"}) | fields
            answer = await red.post(f"/api/v1/jobs/{kind}", json=body)
            assert answer.is_success, answer.text
            return str(answer.json()["id"])

        alias = {"model": "scripted-echo", "backend": "scripted", "fallbacks": [CHAT["model"]]}
        (await boss.put("/api/v1/aliases/quick", json=alias)).raise_for_status()
        hook = await red.post("/api/v1/webhooks", json={"url": "http://127.0.0.1:9/"})
        hook.raise_for_status()
        await red.get("/api/v1/keys")
        ended = [await job(), await job("embed", model="scripted-embed", input=["a"])]
        running = await job(**ENDLESS)
        await job(model="quick")
        await job(on_disconnect="cancel", not_before=time.time() + 86400)
        await job(after=[running])
        await job(conversation="c", conversation_policy="queue", **ENDLESS)
        await job(conversation="c", conversation_policy="queue")
        (await boss.post("/api/v1/jobs/pull", json=PULL)).raise_for_status()
        await job(model="scripted-story:fail=error", max_attempts=1)
        await red.post("/api/v1/jobs/chat", json=CHAT, headers={"Idempotency-Key": "k"})
        form = {"file": ("in.jsonl", jsonl(echo(n, ENDLESS["model"]) for n in range(3)))}
        file = await red.post("/v1/files", data={"purpose": "batch"}, files=form)
        batch = await red.post(
            "/v1/batches",
            json={
                "input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
        )  # fmt: skip
        at.redis.rpush("scripted.chat", "garbage")
        at.names = {
            "job_id": running, "tenant": "red", "queue": "scripted.chat", "backend": "scripted",
            "kind": "chat", "model": str(CHAT["model"]), "worker": at.worker.name, "minute": "1",
            "day": "2026-01-01", "digest": "0" * 64, "process": "x", "conversation": "0" * 32,
            "receiver": f"red/{hook.json()['id']}", "webhook": f"red/{hook.json()['id']}",
            "lane": "red/webhooks", "batch_id": batch.json()["id"], "file_id": file.json()["id"],
        }  # fmt: skip
        for each in ended:
            await red.get(f"/api/v1/jobs/{each}?wait_s=10")


def _give_another_type(redis: Redis, key: str, type_: str) -> None:
    """In one transaction, because processes of the fleet write the key meanwhile."""
    with redis.pipeline(transaction=True) as both:
        both.delete(key)
        if type_ in ("hash", "bitmap"):
            both.rpush(key, "x")
        else:
            both.hset(key, "x", "y")
        both.execute()


def _spoil_hash(redis: Redis, key: str) -> None:
    # Keys that are all damaged let nobody in, which is right.
    own = [] if key == redis_keys.KEYS else redis.hkeys(key)
    fields = [*own, *GARBAGE]
    redis.hset(key, mapping={each: GARBAGE[at % len(GARBAGE)] for at, each in enumerate(fields)})


def _spoil_stream(redis: Redis, key: str) -> None:
    names = {name for _, fields in redis.xrange(key, count=1) for name in fields} or {b"x"}
    for each in GARBAGE:
        redis.xadd(key, dict.fromkeys(names, each))
    redis.xadd(key, {b"\xff": b"\xff"})


def _spoil_sorted_set(redis: Redis, key: str) -> None:
    """Members that are no ids, with scores that are no times; one of its own members, too."""
    redis.zadd(key, dict(zip(GARBAGE, (-math.inf, math.inf, 1e300, -1.5), strict=True)))
    for member in redis.zrange(key, 1, 1):
        redis.zadd(key, {member: math.inf})


def _publish(redis: Redis, channel: str) -> None:
    for each in GARBAGE:
        redis.publish(channel, each)


SPOIL: Final[dict[str, Callable[[Redis, str], Any]]] = {
    "hash": _spoil_hash,
    "sorted set": _spoil_sorted_set,
    "set": lambda redis, key: redis.sadd(key, *GARBAGE),
    "list": lambda redis, key: redis.lpush(key, *GARBAGE),
    "stream": _spoil_stream,
    "channel": _publish,
    "string": lambda redis, key: redis.set(key, GARBAGE[len(key) % 3], keepttl=True),
    "counter": lambda redis, key: redis.set(key, GARBAGE[0], keepttl=True),
    "bitmap": lambda redis, key: redis.set(key, GARBAGE[0], keepttl=True),
}


async def _failing_surfaces(at: Damaged) -> list[str]:
    async with at.client(at.shim.key) as boss, at.client(at.red_key) as red:
        asked = [(boss, path) for path in SURFACES] + [(red, path) for path in OF_A_TENANT]
        return await _failed(who.get(path) for who, path in asked)


async def _failed(calls: Iterable[Awaitable[httpx.Response]]) -> list[str]:
    """Answers of calls at once that are errors of the shim, and calls without any."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return [told for answer in answers if (told := _failure(answer))]


def _failure(answer: httpx.Response | BaseException) -> str:
    if isinstance(answer, httpx.HTTPError):
        return f"{answer!r} {answer.request.method} {answer.request.url}"
    if isinstance(answer, BaseException):
        raise answer
    if answer.status_code < 500 or answer.status_code in UNAVAILABLE:
        return ""
    asked = answer.request
    return f"{answer.status_code} {asked.method} {asked.url} {answer.text[:150]}"


async def _failing_changes(at: Damaged, name: str) -> list[str]:
    """Do what writes keys of most families, whatever comes of it."""
    jobs: tuple[dict[str, Any], ...] = (
        CHAT, CHAT | {"conversation": uuid4().hex, "conversation_policy": "queue"},
        CHAT | {"model": "quick"}, CHAT | {"on_disconnect": "cancel"},
    )  # fmt: skip
    async with at.client(at.shim.key) as boss, at.client(at.red_key) as red:

        async def stored() -> httpx.Response:
            form = {"file": ("in.jsonl", jsonl(echo(1, ENDLESS["model"])))}
            file = await red.post("/v1/files", data={"purpose": "batch"}, files=form)
            return await red.delete(f"/v1/files/{file.json()['id']}") if file.is_success else file

        calls = [red.post("/api/v1/jobs/chat", json=each) for each in jobs]
        calls += [
            red.post("/api/v1/jobs/chat", json=CHAT, headers={"Idempotency-Key": name}),
            red.post("/api/v1/jobs/embed", json=EMBED),
            boss.post("/api/v1/jobs/pull", json=PULL),
            stored(),
        ]
        if name.startswith(redis_keys.DELETIONS):
            calls.append(boss.delete("/api/v1/tenants/green?confirm=green"))
        return await _failed(calls)


async def _job_of_blue(at: Damaged) -> str:
    """How a job of the other tenant ends."""
    async with at.client(at.blue_key) as blue:
        try:
            answer = await blue.post("/v1/chat/completions", json=CHAT, timeout=10)
        except httpx.HTTPError as error:
            return repr(error)
        return "done" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:300]}"


async def _until_written(at: Damaged, name: str) -> None:
    (family,) = TOGETHER[name]
    async with asyncio.timeout(60), at.client(at.red_key) as red:
        while not at.redis.keys(family.pattern):
            await red.post("/api/v1/jobs/chat", json=CHAT)
            await asyncio.sleep(0.1)


async def _until_named(at: Damaged, keys: list[str], since: tuple[int, int]) -> None:
    """Enqueue until the log names one of these keys: some are not read while slots are idle.

    A key that another test has damaged is named once a minute.
    """
    async with asyncio.timeout(75), at.client(at.red_key) as red:
        while not at.names_one_of(keys, since):
            await red.post("/api/v1/jobs/chat", json=CHAT)
            await asyncio.sleep(0.1)


def _together() -> dict[str, tuple[Family, ...]]:
    """Families that are given another type together: what is one tenant's; else each alone."""
    alone = [each for each in FAMILIES if each.type != "channel" and not each.is_of_one_tenant]
    own = tuple(each for each in FAMILIES if each.type != "channel" and each.is_of_one_tenant)
    return {"one tenant's": own, **{each.key: (each,) for each in alone}}


TOGETHER: Final = _together()


@pytest.mark.parametrize("name", TOGETHER)
async def test_keys_of_another_type_fail_no_surface_and_no_process(
    fleet: Damaged, name: str
) -> None:
    if name in NOW_AND_THEN:
        await _until_written(fleet, name)
    keys = {family: fleet.keys(family) for family in TOGETHER[name]}
    blues, since = "", fleet.logged()
    with fleet.mended([key for each in keys.values() for key in each]):
        for family, its in keys.items():
            for key in its:
                _give_another_type(fleet.redis, key, family.type)
        await asyncio.sleep(0.3)
        failing = await _failing_surfaces(fleet) + await _failing_changes(fleet, name)
        if all(family.is_of_one_tenant for family in keys):
            blues = await _job_of_blue(fleet)
        if len(keys) == 1 and name not in QUIET:
            await _until_named(fleet, [key for each in keys.values() for key in each], since)
    blues = blues or await _job_of_blue(fleet)

    assert failing == []
    assert blues == "done"
    assert fleet.worker.popen.poll() is None, fleet.worker.text()[-2000:]


GARBAGE_IN: Final = tuple(each for each in FAMILIES if each.type != "channel")


@pytest.mark.parametrize("family", GARBAGE_IN, ids=lambda each: each.key)
async def test_garbage_in_a_key_fails_no_surface_and_no_process(
    fleet: Damaged, family: Family
) -> None:
    keys = fleet.keys(family)
    with fleet.mended(keys):
        for key in keys:
            SPOIL[family.type](fleet.redis, key)
        failing = await _failing_surfaces(fleet)
        blues = await _job_of_blue(fleet)

    assert failing == []
    assert blues == "done"
    assert fleet.worker.popen.poll() is None, fleet.worker.text()[-2000:]
