"""Each user of Redis may do what its processes do, and no more."""

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError
from support.redis_server import RedisServer

from contract import redis_keys
from relay.access.redis_users import aclfile, digest_of, digests_in, redis_users

PASSWORDS = {each.name: f"pw-{each.name}" for each in redis_users()}
SHIM, WORKER, ADMIN = PASSWORDS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("acl")
    file = folder / "users.acl"
    file.write_text(aclfile({name: digest_of(text) for name, text in PASSWORDS.items()}))
    running = RedisServer(folder, "--aclfile", str(file))
    yield running
    running.stop()


def connected(server: RedisServer, user: str) -> Redis:
    return Redis(port=server.port, username=user, password=PASSWORDS[user])


REFUSALS = ("ACL failure in script", "not allowed", "user executing the script can't")
"""Of a command within a script, by Valkey and by Redis 7.0."""


def may(server: RedisServer, user: str, *words: str) -> bool:
    with connected(server, user) as line:
        try:
            line.execute_command(*words)
        except NoPermissionError:
            return False
        except ResponseError as error:
            return not any(words in str(error) for words in REFUSALS)
    return True


def test_scripts_bring_the_commands_that_they_call_and_no_dangerous_one() -> None:
    for user in redis_users():
        assert {"zadd", "xadd", "restore", "publish"} <= set(user.commands)
        assert {"flushall", "keys", "config", "sort", "script"}.isdisjoint(user.commands)


@pytest.mark.parametrize(
    "words",
    [
        ("FLUSHALL",), ("CONFIG", "SET", "dir", "/tmp"), ("CONFIG", "GET", "*"), ("KEYS", "*"),
        ("SHUTDOWN", "NOSAVE"), ("REPLICAOF", "NO", "ONE"), ("ACL", "LIST"), ("MONITOR",),
        ("DEBUG", "SLEEP", "0"), ("SCRIPT", "FLUSH"), ("FUNCTION", "LIST"), ("SAVE",),
        ("MIGRATE", "h", "1", "fleet:keys", "0", "1"), ("MODULE", "LIST"), ("CLIENT", "KILL", "x"),
        ("CLIENT", "PAUSE", "1"),
        ("GET", "somebody:else"), ("SET", "celery", "1"),
        ("EVAL", "return redis.call('KEYS', '*')", "0"), ("SWAPDB", "0", "1"),
        ("EVAL", "return redis.call('GET', 'somebody:else')", "0"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_nobody_may_do_what_the_fleet_never_does(
    server: RedisServer, words: tuple[str, ...]
) -> None:
    assert [user for user in PASSWORDS if may(server, user, *words)] == []


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("HGETALL", redis_keys.KEYS), {SHIM, ADMIN}),
        (("HGETALL", redis_keys.file("file-1")), {SHIM, ADMIN}),
        (("HGETALL", redis_keys.webhook_secrets("a")), {SHIM, ADMIN}),
        (("ZCARD", redis_keys.AUDIT), {SHIM, ADMIN}),
        (("ZRANGE", redis_keys.files("a"), "0", "-1"), {SHIM, ADMIN}),
        (("HGETALL", redis_keys.batch("batch_1")), {SHIM, ADMIN}),
        (("ZRANGE", redis_keys.batches("a"), "0", "-1"), {SHIM, ADMIN}),
        (("GET", redis_keys.vector("box", "1")), {WORKER, ADMIN}),
        (("HGETALL", redis_keys.residence("box", "m")), {WORKER, ADMIN}),
        (("BRPOP", "box.chat", "0.01"), {WORKER, ADMIN}),
        (("SMEMBERS", "_kombu.binding.celery.pidbox"), {WORKER, ADMIN}),
        (("LLEN", "w@box.celery.pidbox"), {WORKER, ADMIN}),
        (("LPUSH", "box.chat", "x"), {SHIM, WORKER, ADMIN}),
        (("LPOP", "box.chat"), {SHIM, WORKER, ADMIN}),  # as docs/hardening.md says
        (("LRANGE", "box.chat", "0", "-1"), {SHIM, WORKER, ADMIN}),
        (("RPOP", "box.chat"), {WORKER, ADMIN}),
        (("HGETALL", redis_keys.record("1f")), {SHIM, WORKER, ADMIN}),
        (("ZRANGE", redis_keys.recent("a"), "0", "-1"), {SHIM, WORKER, ADMIN}),
        (("PUBLISH", redis_keys.channel("1f"), "x"), {SHIM, WORKER, ADMIN}),
        (("UNLINK", redis_keys.vector("box", "a:1")), {SHIM, WORKER, ADMIN}),
        (("SCAN", "0"), {SHIM, ADMIN}),
        (("CLIENT", "LIST"), {ADMIN}),
        (("ACL", "LOG"), {ADMIN}),
    ],
    ids=lambda value: " ".join(map(str, sorted(value) if isinstance(value, set) else value)),
)
def test_each_may_do_what_it_needs(
    server: RedisServer, words: tuple[str, ...], allowed: set[str]
) -> None:
    assert {user for user in PASSWORDS if may(server, user, *words)} == allowed


def test_without_a_user_nobody_is_let_in(server: RedisServer) -> None:
    assert server.say("GET", "fleet:keys").startswith(b"-NOAUTH")


def test_written_again_a_file_keeps_its_passwords() -> None:
    first = {name: digest_of(text) for name, text in PASSWORDS.items()}

    assert digests_in(aclfile(first)) == first
    assert digests_in("user fleet-shim on nopass\n# other\n") == {}
