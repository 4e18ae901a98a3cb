"""The users of Redis for shims, workers and admins, each with the commands and keys that it needs.

`fleet redis acl` writes them as an aclfile of the server (Redis 7 or later, Valkey). A worker runs
next to a backend, often on a machine of less trust, so it reads no API keys, files, batches,
secrets of webhooks or audit log. Either process may become the maintainer, so both may do what a
maintainer does. A shim deletes what a tenant has (docs/adr/0063), for which it looks through the
names of all keys, and may delete cached vectors but not read them. Nobody may flush, configure,
stop, replicate or copy the server.

What is not withheld is allowed to both, and so is what a script calls: a new key or script needs no
change here. The server compares a key with one pattern after the other, so families are one pattern
where they can be, those of jobs and queues first.
"""

import hashlib
import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, get_args

from contract import redis_keys
from contract.requests import Kind

_MODULES: Final = (
    "client eval evalsha hello hkeys hscan hvals info memory|usage ping psubscribe select"
    " spop srandmember subscribe type unsubscribe xrevrange xtrim zrevrangebyscore zrevrank zscan"
)
"""What the relay's modules send besides."""
_CELERY: Final = "brpop exec multi punsubscribe rpop script|exists script|load unwatch watch"
"""What kombu and the transport of workers send besides."""
_DIAGNOSIS: Final = (
    "acl|log acl|whoami dbsize latency|latest memory|doctor memory|stats"
    " object|encoding object|freq object|idletime scan slowlog|get xinfo|stream"
)
"""What somebody runs who looks for a fault."""

_OTHER_CLIENTS: Final = (
    "client|kill", "client|no-evict", "client|pause", "client|unpause",
)  # fmt: skip
"""Parts of CLIENT that concern other connections. Allowed is CLIENT without them, because redis-py
sends `client|setinfo`, and Redis 7.0 loads no file that names it."""

_WITHHELD_FROM_SHIMS: Final = frozenset({redis_keys.vector, redis_keys.residence})
_WITHHELD_FROM_WORKERS: Final = frozenset(
    {
        redis_keys.file, redis_keys.files, redis_keys.batch, redis_keys.batch_rows,
        redis_keys.batch_parts, redis_keys.batches, redis_keys.live_batches,
        redis_keys.webhook_secrets, redis_keys.audit_of, redis_keys.audit_refused_of,
    }
)  # fmt: skip
_WITHHELD_TABLES: Final = frozenset(
    {
        redis_keys.KEYS, redis_keys.KEYS_USED, redis_keys.AUDIT, redis_keys.AUDIT_REFUSED,
        redis_keys.AUDIT_OF_ADMINS,
        redis_keys.BATCHES, redis_keys.STORED, redis_keys.HELD,
    }
)  # fmt: skip
"""Keys without a parameter that workers do not get."""

_TICKETS: Final = tuple(redis_keys.queue_name("*", kind) for kind in get_args(Kind))
_BY_PRIORITY: Final = tuple(f"{each}???" for each in _TICKETS)
"""The lists that kombu looks for beside them: two control characters and a digit."""
_CONTROL: Final = ("_kombu.*", "*.celery.pidbox*")
"""Keys of Celery's remote control."""
_BUSY: Final = ("fleet:j:", "fleet:q:")
_LUA: Final = Path(__file__).parents[1] / "lua"
_CALL: Final = re.compile(r"redis\.p?call\(\s*'([A-Z]+)'(?:, '([A-Z]+)')?")
_CONTAINERS: Final = frozenset({"MEMORY", "OBJECT"})
"""Commands whose first word says what they do: of these only what is used is allowed."""
_LINE: Final = re.compile(r"^user (\S+) on #([0-9a-f]{64}) ")


class RedisUser(NamedTuple):
    """A user of Redis: its name, and what it may do.

    It has all channels, which hold nothing: PSUBSCRIBE is allowed only for a pattern that a rule
    has word for word, and each process has a pattern of its own.
    """

    name: str
    commands: tuple[str, ...]
    denied: tuple[str, ...]
    """Parts of these commands that it may not use."""
    keys: tuple[str, ...]
    written: tuple[str, ...] = ()
    """Keys that it may write and delete, and not read."""

    def rule(self, digest: str) -> str:
        """Its line of an aclfile; `digest` is the SHA-256 of its password, in hex."""
        words = ["user", self.name, "on", f"#{digest}", "resetkeys", "allchannels", "-@all"]
        words += [f"~{each}" for each in self.keys]
        words += [f"%W~{each}" for each in self.written]
        words += [f"+{each}" for each in self.commands]
        return " ".join(words + [f"-{each}" for each in self.denied])


def redis_users() -> tuple[RedisUser, ...]:
    """The users: of shims, of workers, and of admins, who may do what both may, and look."""
    tables = _tables()
    shim_keys = [*_families(_WITHHELD_FROM_SHIMS), *_sorted(tables), *_TICKETS]
    worker_tables = _sorted(tables - _WITHHELD_TABLES)
    worker_keys = [
        *_families(_WITHHELD_FROM_WORKERS),
        *worker_tables,
        *_TICKETS,
        *_BY_PRIORITY,
        *_CONTROL,
    ]
    relay = [*_script_commands(), *_MODULES.split()]
    celery = [*relay, *_CELERY.split()]
    others = (*_OTHER_CLIENTS, "client|list")
    admin_keys = ("fleet:*", *_TICKETS, *_BY_PRIORITY, *_CONTROL)
    looking = [*celery, *_DIAGNOSIS.split()]
    return (
        RedisUser(
            "fleet-shim", _sorted([*relay, "scan"]), (*others, "client|unblock"), tuple(shim_keys),
            (redis_keys.vector("*", "*"),),
        ),
        RedisUser("fleet-worker", _sorted(celery), others, tuple(worker_keys)),
        RedisUser("fleet-admin", _sorted(looking), _OTHER_CLIENTS, admin_keys),
    )  # fmt: skip


def _script_commands() -> set[str]:
    """Commands of the Lua scripts, which run with the rights of who calls them."""
    texts = (file.read_text(encoding="utf-8") for file in _LUA.rglob("*.lua"))
    return {
        f"{name}|{part}".lower() if name in _CONTAINERS else name.lower()
        for text in texts
        for name, part in _CALL.findall(text)
    }


def _families(withheld: Collection[object]) -> list[str]:
    """Patterns of the keys that functions of contract/redis_keys.py name, without those withheld.

    `fleet:q:*` stands for all that begin so, if none of them is withheld.
    """
    names = _named()
    partly = {_family(name) for make, name in names.items() if make in withheld}
    found = {
        name if _family(name) in partly else f"{_family(name)}:*"
        for make, name in names.items()
        if make not in withheld
    }
    return sorted(found, key=lambda name: (not name.startswith(_BUSY), name))


def _named() -> dict[object, str]:
    found: dict[object, str] = {}
    for make in vars(redis_keys).values():
        if inspect.isfunction(make) and make.__module__ == redis_keys.__name__:
            name = make(*["*"] * len(inspect.signature(make).parameters))
            if name.startswith("fleet:"):
                found[make] = name
    return found


def _family(name: str) -> str:
    return ":".join(name.split(":")[:2])


def _tables() -> set[str]:
    """The keys that have one name."""
    names = (each for each in vars(redis_keys).values() if isinstance(each, str))
    return {name for name in names if name.startswith("fleet:")}


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def digest_of(password: str) -> str:
    """How an aclfile has a password."""
    return hashlib.sha256(password.encode()).hexdigest()


def aclfile(digests: Mapping[str, str]) -> str:
    """The text of an aclfile in which only these users exist; their passwords' digests by name."""
    lines = [each.rule(digests[each.name]) for each in redis_users()]
    return "\n".join(["user default off resetkeys resetchannels -@all", *lines, ""])


def digests_in(text: str) -> dict[str, str]:
    """The digests that an aclfile of ours has, by user."""
    found = (_LINE.match(line) for line in text.splitlines())
    return {match[1]: match[2] for match in found if match}
