"""The configured backends: tables in `fleet.toml`, then variables, which win by name."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from contract.redis_keys import kind_of
from contract.requests import Kind
from contract.settings import TOO_DEEP, demand_trust
from workers.backends.dsn import VARIABLE_PREFIX, BackendConfig, DsnError, from_environment, parse
from workers.endpoints.broadcast import EVERYWHERE

DEFAULT_SLOTS: Final[Mapping[str, int]] = {
    "ollama": 4,
    "llamacpp": 4,
    "llamacpp-router": 4,
    "llamaswap": 4,
    "lmstudio": 4,
    "vllm": 64,
    "openai": 16,
    "generic": 8,
    "localai": 4,
    "tei": 8,
    "infinity": 8,
    "gemini": 16,
    "vertex": 16,
    "endpoints": 16,
    "sd": 1,
    "a1111": 1,
    "scripted": 1000,
    "local": 1,
    "llama": 1,
    "openvino": 1,
}
"""Concurrent chats, embeds or reranks where neither configuration nor server has a number."""

_LONGEST_SECRET: Final = 8192
_SINGLE: Final[frozenset[Kind]] = frozenset({"pull", "create", "image", "load", "unload"})
"""Kinds that keep a backend's disk or memory busy: one at a time."""
_FEW: Final = 4
_PAIRS: Final = frozenset({"vllm", "local", "scripted"})
"""Types whose rerank jobs share requests: `ScoresPairs` of workers/backends/protocols.py."""
PACKED_EMBEDS: Final = 64
"""Jobs of a kind that a worker runs at once where it packs them; `Packer.has_capacity` bounds their
texts."""


def configured(environ: Mapping[str, str], file: Path = Path("fleet.toml")) -> list[BackendConfig]:
    """Return every backend that the file's `[backends]` and the environment name, by name.

    An entry is a DSN, as in `box = "ollama://10.0.0.5"`, `@` and the name of a file that holds
    one, or a table of the fields of BackendConfig. Raises DsnError, which names the entry and
    never repeats a key; InvalidSetting if the file is not trusted.
    """
    found = {config.name: config for config in _from_file(file)}
    found |= {config.name: config for config in from_environment(_with_files(environ))}
    return [found[name] for name in sorted(found)]


def secret_file(name: str, path: Path) -> str:
    """The one line of a file with a secret; `name` is the setting or option that names it.

    Raises DsnError, which never repeats what the file holds.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_SECRET + 1).decode().strip()
    except OSError as error:
        raise DsnError(f"{name}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DsnError(f"{name}: {path} is not a file of text") from None
    if not text or len(text) > _LONGEST_SECRET or len(text.splitlines()) > 1:
        raise DsnError(f"{name}: {path} must hold one line of at most {_LONGEST_SECRET} bytes")
    return text


def _with_files(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with the contents of the files that `LLM_<NAME>=@/path` names."""
    named = {
        variable: secret_file(variable, Path(value[1:]))
        for variable, value in environ.items()
        if variable.startswith(VARIABLE_PREFIX) and value.startswith("@/")
    }
    return {**environ, **named} if named else environ


def _from_file(file: Path) -> list[BackendConfig]:
    if not file.is_file():
        return []
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DsnError(f"{file}: {error}") from error
    except RecursionError:
        raise DsnError(f"{file}: {TOO_DEEP}") from None
    demand_trust(file, found, {"backends"} & found.keys())
    tables = found.get("backends", {})
    if not isinstance(tables, dict):
        raise DsnError(
            f"{file}: backends must be a table: write [backends], and below it name = DSN"
        )
    return [_entry(file, name, entry) for name, entry in tables.items()]


def _entry(file: Path, name: str, entry: Any) -> BackendConfig:
    if isinstance(entry, str):
        variable = VARIABLE_PREFIX + name
        if entry.startswith("@"):
            entry = secret_file(f"{file}: {name}", file.parent / entry[1:])
        return parse(variable, entry)
    if not isinstance(entry, dict):
        raise DsnError(f"{file}: [backends] {name} must be a DSN or a table")
    try:
        return BackendConfig.model_validate({"name": name, **entry})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DsnError(f"{file}: [backends.{name}] {where}: {first['msg']}") from None


def slots_of(config: BackendConfig, kind: Kind, *, packs: bool = False) -> int:
    """Return how many jobs of a kind a backend gets at once, before its first probe.

    Where the worker packs jobs, it runs more of them than the backend gets requests.
    """
    is_packed = kind == "embed" or (kind == "rerank" and config.type in _PAIRS)
    if is_packed and packs and kind not in config.slots_by_kind:
        return max(PACKED_EMBEDS, slots_of(config, kind))
    configured_slots = config.slots_for(kind)
    if configured_slots is not None:
        return configured_slots
    if kind in _SINGLE:
        return 1
    return DEFAULT_SLOTS[config.type] if kind in {"chat", "embed", "rerank"} else _FEW


def embed_requests_of(config: BackendConfig) -> int:
    """Return how many embed requests a backend gets at once where the worker packs jobs."""
    usual = config.slots or DEFAULT_SLOTS[config.type]
    return min(usual, config.slots_by_kind.get("embed", usual))


def over_all(slots: Mapping[str, int], endpoints: int) -> dict[str, int]:
    """Return the slots of a backend by queue, from those of one endpoint."""
    return {
        queue: each if kind_of(queue) in EVERYWHERE else each * endpoints
        for queue, each in slots.items()
    }
