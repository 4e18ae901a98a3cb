"""What the product uses of libraries beyond their documented interface is there, and bounded.

A release that renames one of these would break a worker or a shim in the middle of its work. Here
it fails by name, and pyproject.toml has an upper bound for each of these libraries, so that nobody
gets such a release without a change of ours.
"""

import ast
import importlib
import inspect
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
OURS = ("contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet")

MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "aiohttp.ClientSession": ("_retry_connection",),
    "celery.concurrency.base.BasePool": (
        "_get_info",
        "body_can_be_buffer",
        "on_apply",
        "on_close",
        "on_start",
        "on_stop",
        "on_terminate",
        "signal_safe",
        "terminate_job",
    ),
    "celery.concurrency.prefork": ("_run_ready_callbacks",),
    "kombu.transport": ("_transport_cache", "TRANSPORT_ALIASES"),
    "kombu.transport.redis.Channel": (
        "from_transport_options",
        "_in_poll",
        "brpop_timeout",
        "connection_errors",
        "sep",
    ),
    "kombu.transport.redis.Transport": ("Channel", "cycle"),
    "kombu.transport.virtual.Transport": ("_deliver",),
    "redis._parsers.base.BaseParser": ("parse_error",),
    "redis.asyncio.connection.AbstractConnection": ("_reader", "_writer"),
    "redis.connection.AbstractConnection": ("_sock",),
    "redis.exceptions.RedisError": ("status_code",),
    "starlette.requests.Request": ("_body",),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol": ("app",),
    "uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol": ("frames",),
}
"""Used from outside, or set by a class of ours, by module or class."""
SUBCLASSES: Final[dict[str, str]] = {
    "api_shim.http.json_body._StrictRequest": "starlette",
    "api_shim.http.origins.CrossOrigin": "starlette",
    "api_shim.server.frame_rate.CountedFrames": "websockets",
    "api_shim.server.http_protocol.BoundedHttpProtocol": "uvicorn",
    "api_shim.server.websocket_protocol.BoundedWebSocketProtocol": "uvicorn",
    "workers.celery_pool.consumer.PausingConsumer": "celery",
    "workers.celery_pool.pool.AsyncioPool": "celery",
    "workers.celery_pool.redis_transport.Channel": "kombu",
    "workers.celery_pool.redis_transport.Poller": "kombu",
    "workers.celery_pool.redis_transport.SentOnce": "celery",
}
"""Classes of ours below one of a library: all that they use and override of it."""
OF_OTHERS: Final = frozenset({"_asyncio_future_blocking", "_current_frames", "_model", "_parent"})
"""Of Python, llama-cpp-python and fsspec."""


def found(path: str) -> Any:
    """The module or class of this name."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


@lru_cache
def source(kind: type) -> str:
    """The text of a class; empty for one that is made of none."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def has(holder: Any, member: str) -> bool:
    """Whether it has a member, or its classes set one on themselves."""
    classes = [each for each in getattr(holder, "__mro__", ()) if each is not object]
    sets = rf"\bself\.{re.escape(member)}\b|^    {re.escape(member)}\s*[:=]"
    return hasattr(holder, member) or any(
        re.search(sets, source(each), re.MULTILINE)
        for each in classes
        if not each.__module__.startswith(OURS)
    )


def used(ours: type) -> set[str]:
    """What the code of a class names of itself and of `super()`."""
    tree = ast.parse(source(ours))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id == "self")
            or (isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super")
        )
    }


def own(ours: type) -> set[str]:
    """What a class of ours brings itself, and overrides nothing with."""
    assigned = re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = |self\.(\w+), ", source(ours))
    overridden = {
        name for name, member in vars(ours).items() if getattr(member, "__override__", False)
    }
    names = {name for pair in assigned for name in pair if name}
    return (names | set(vars(ours)) | set(vars(ours).get("__annotations__", ()))) - overridden


@pytest.mark.parametrize("path", MEMBERS)
def test_a_member_that_is_used_is_there(path: str) -> None:
    holder = found(path)
    gone = [member for member in MEMBERS[path] if not has(holder, member)]

    assert not gone, f"{path} has no {', '.join(gone)} any more: see where the product uses it"


@pytest.mark.parametrize("path", SUBCLASSES)
def test_what_a_class_of_ours_uses_of_its_base_is_there(path: str) -> None:
    ours = found(path)
    base = next(each for each in ours.__mro__ if each.__module__.startswith(SUBCLASSES[path]))
    wanted = used(ours) - own(ours) | {
        name for name, member in vars(ours).items() if getattr(member, "__override__", False)
    }
    gone = sorted(name for name in wanted if not has(base, name))

    assert wanted
    assert not gone, f"{base.__qualname__} has no {', '.join(gone)} any more, which {path} uses"


def test_a_member_that_is_gone_is_named() -> None:
    protocol = found("uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol")

    assert has(protocol, "close_sent")
    assert not has(protocol, "was_renamed")


def test_every_private_member_that_is_used_is_in_the_table() -> None:
    named = {member for members in MEMBERS.values() for member in members} | OF_OTHERS
    lines = [
        (path, line)
        for top in OURS
        for path in (TOP / top).rglob("*.py")
        for line in path.read_text().splitlines()
        if "noqa: SLF001" in line
    ]

    assert len(lines) > 5
    assert not [
        (path.name, line) for path, line in lines
        if not {*re.findall(r"\.(_[a-z]\w+)", line)} & (named | {"_identified"})
    ]  # fmt: skip


def test_each_of_these_libraries_has_an_upper_bound() -> None:
    declared = {Requirement(word).name: Requirement(word) for word in PROJECT["dependencies"]}
    libraries = {path.partition(".")[0] for path in MEMBERS} | set(SUBCLASSES.values())

    assert libraries == {
        "aiohttp",
        "celery",
        "kombu",
        "redis",
        "starlette",
        "uvicorn",
        "websockets",
    }
    assert not [
        name for name in libraries
        if not any(each.operator == "<" for each in declared[name].specifier)
    ]  # fmt: skip
