"""Checks of the services: Redis, the shims, the backends."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import httpx

from contract import redis_keys
from contract.errors import FleetError, InvalidSetting, RelayUnavailable
from contract.roster import FleetLimit, utc
from fleet.client.answers import fields_of
from fleet.client.async_client import AsyncClient
from fleet.client.errors import CannotStart, NoFleet, NotAuthorised
from fleet.client.settings import ClientSettings, addresses
from fleet.client.transport import is_address
from fleet.doctor.finding import Finding, broken, note, ok
from fleet.local.launch_plan import Plan
from fleet.local.redis_server import ServerChoice, choose
from fleet.local.supervisor import silent_printer
from fleet.local.up import running
from relay.connection import Connection
from relay.files import mib
from relay.repair.damaged_keys import left_keys, set_aside_keys
from relay.settings import RelaySettings
from workers.backend_registry import build
from workers.backends.discovery import PORTS, discover
from workers.backends.dsn import BackendConfig, DsnError
from workers.config import configured

_TIMEOUT_S = 5.0
_SKEW_S = 2.0
_NEARLY_FULL = 0.8
_NOT_READY = "responds, but is not ready"


async def redis() -> list[Finding]:
    """The Redis server that `fleet up` would use and why, whether it works, and its clock."""
    settings = RelaySettings()
    try:
        choice = choose(settings)
    except CannotStart as error:
        return [broken("redis", "none on this machine", error.message)]
    if choice.binary is None:
        return [await _configured_redis(settings), *await _damaged_keys(settings)]
    return [await _embedded_redis(choice)]


async def _configured_redis(settings: RelaySettings) -> Finding:
    try:
        async with asyncio.timeout(_TIMEOUT_S), Connection.open(settings) as connection:
            await connection.ping()
            seconds, _ = await connection.command("TIME")
    except (RelayUnavailable, TimeoutError, ValueError) as error:
        return broken(
            "redis",
            f"the server of FLEET_REDIS_URL does not respond ({str(error) or 'timeout'})",
            "start it, correct FLEET_REDIS_URL, or unset it to use an embedded server",
        )
    skew_s = abs(time.time() - float(seconds))
    if skew_s > _SKEW_S:
        return note(
            "redis",
            f"the server of FLEET_REDIS_URL responds; its clock is {skew_s:.0f} s off ours",
            "run a time service (chrony, systemd-timesyncd) on both machines",
        )
    return ok("redis", "the server of FLEET_REDIS_URL responds, and its clock agrees with ours")


async def _damaged_keys(settings: RelaySettings) -> list[Finding]:
    """Keys that another program has overwritten: those that were set aside, and those left."""
    try:
        async with asyncio.timeout(_TIMEOUT_S), Connection.open(settings) as connection:
            aside, left = await set_aside_keys(connection), await left_keys(connection)
    except (RelayUnavailable, TimeoutError, ValueError):
        return []  # the finding before this one says so
    found = [
        broken(
            f"redis key {key}",
            "another program has written to it, and nothing else has what it held",
            f"look at it, then set it aside: `redis-cli RENAME {key} {redis_keys.damaged(key)}`; "
            "what it held (keys, aliases, webhooks) must be made again",
        )
        for key in left
    ]
    return found + [
        note(
            f"redis key {each.key}",
            f"it was a {each.found}, and was set aside at {utc(each.at)}; the fleet goes on",
            f"see {redis_keys.damaged(each.key)} within a week, and which program writes to Redis",
        )
        for each in aside
    ]


async def _embedded_redis(choice: ServerChoice) -> Finding:
    """Start the embedded server in a temporary folder, and stop it."""
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fleet-doctor-") as folder:
        try:
            async with running(Plan(Path(folder), ports=()), silent_printer(), RelaySettings()):
                took_s = time.monotonic() - began_at
        except (CannotStart, RelayUnavailable) as error:
            return broken(
                "redis",
                f"{choice.binary} does not start: {error.message}",
                "install redis-server 7 or newer, or point FLEET_REDIS_URL at a server",
            )
    return ok("redis", f"{choice.binary} starts in {took_s:.1f} s; {choice.why}")


async def shims() -> list[Finding]:
    """Whether shims respond at FLEET_URL, and which backends of their roster are unhealthy."""
    found = [await _shim(url) for url in addresses(ClientSettings().url)]
    if any(each.state == "ok" for each in found):
        found += await _sick()
    # One that is not ready may be so because something is full.
    if any(each.state == "ok" or _NOT_READY in each.detail for each in found):
        found += await _limits()
    return found


async def _limits() -> list[Finding]:
    """How full the limits of a running fleet are, for an admin's key."""
    try:
        async with AsyncClient() as fleet, asyncio.timeout(_TIMEOUT_S):
            return [_how_full(each) for each in await fleet.limits()]
    except NotAuthorised:
        fix = "set FLEET_API_KEY to the key of an admin"
        return [note("limits", "only an admin's key reads how full they are", fix)]
    except (FleetError, TimeoutError) as error:
        why = str(error) or f"no response within {_TIMEOUT_S:.0f} s"
        return [note("limits", f"cannot be read: {why}", "see `fleet up`'s output")]


def _how_full(limit: FleetLimit) -> Finding:
    what, share = f"limit: {limit.what}", limit.held / limit.limit
    is_size = limit.unit == "bytes"
    held, most = (mib(n) if is_size else f"{n:,} {limit.unit}" for n in (limit.held, limit.limit))
    detail = f"{held} of {most} ({share:.0%})"
    if share < _NEARLY_FULL:
        return ok(what, detail)
    fix = f"make room, or change it: {limit.setting}"
    return broken(what, detail, fix) if share >= 1 else note(what, detail, fix)


async def _sick() -> list[Finding]:
    try:
        async with AsyncClient() as fleet, asyncio.timeout(_TIMEOUT_S):
            known = await fleet.backends()
    except NotAuthorised as error:
        return [note("roster", error.message, "set FLEET_API_KEY to a key of this fleet")]
    except (FleetError, TimeoutError):
        return []  # it has stopped since the first check
    fix = "start its server, or remove it: `fleet backends remove {name}`"
    return [
        broken(f"roster {each.name}", each.error or "not healthy", fix.format(name=each.name))
        for each in known
        if not each.healthy
    ]


async def _shim(url: str) -> Finding:
    what = "shim"
    if not is_address(url):
        return broken(what, "FLEET_URL is not an address", "set it to http://host:8700")
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
            answer = await http.get(f"{url}/readyz?workers=1")
    except httpx.TransportError:
        fix = "start one with `fleet up`, or point FLEET_URL at a running one"
        return note(what, f"nothing responds at {url}", fix)
    try:
        said = fields_of(answer.content)
    except NoFleet:
        said = {}
    if answer.is_success and "checks" in said:
        return ok(what, f"{url} is ready")
    if answer.is_success or not said:
        fix = "point FLEET_URL at the shim, or stop the program that uses its port"
        return broken(what, f"another program responds at {url}", fix)
    detail = said.get("detail", "no reason given")
    return broken(what, f"{url} {_NOT_READY}: {detail}", "see `fleet up`'s output")


async def backends() -> list[Finding]:
    """Whether the configured backends respond; if none is configured, those on default ports."""
    try:
        known = configured(os.environ)
    except (DsnError, InvalidSetting) as error:
        return [broken("backends", str(error), "correct that variable or fleet.toml")]
    if known:
        return list(await asyncio.gather(*(_backend(each) for each in known)))
    found = await discover()
    if not found:
        ports = ", ".join(str(port) for port in PORTS)
        return [
            note(
                "backends",
                f"none configured, and no model server responds on ports {ports}",
                "start Ollama, llama-server, LM Studio or vLLM, or set LLM_<NAME>=ollama://host; "
                "until then the scripted backend is used",
            )
        ]
    return list(await asyncio.gather(*(_backend(each) for each in found)))


async def _backend(config: BackendConfig) -> Finding:
    what = f"backend {config.name}"
    where = f"{config.type} at {config.url}" if config.url else config.type
    try:
        backend = build(config)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                version = await backend.check()
                models = await backend.models()
        finally:
            await backend.aclose()
    except (FleetError, TimeoutError) as error:
        why = str(error) or f"no response within {_TIMEOUT_S:.0f} s"
        fix = f"start it, or correct LLM_{config.name.upper()}"
        return broken(what, f"{where}: {why}", fix)
    if not models:
        fix = f"download one: `fleet pull MODEL --backend {config.name}`"
        return note(what, f"{where} has no model", fix)
    return ok(what, f"{where}, version {version or 'unknown'}, {len(models)} models")
