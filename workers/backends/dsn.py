"""A backend in one line, as in `LLM_BOX=ollama://10.0.0.5:11434?slots=4`, and what it means.

    <type>[+http|+https]://[key@]host[:port][/path][?slots=4&slots.embed=2&idle_s=60]

Local kinds of servers speak http, hosted ones https; `+http` and `+https` override. Keys are
percent-decoded. No error repeats the line, because it may hold a key.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator

from contract.names import BACKEND_NAME
from contract.requests import Kind
from contract.wire import Noun

VARIABLE_PREFIX: Final = "LLM_"
WELL_KNOWN: Final = {"OLLAMA_URL": "ollama", "LLAMACPP_URL": "llamacpp", "LMSTUDIO_URL": "lmstudio"}
"""Variables that hold the http URL of a server whose type their name tells."""


class _Scheme(NamedTuple):
    protocol: str | None
    """None: not a network server."""
    host: str | None = None
    port: int | None = None
    path: str = ""

    @property
    def default(self) -> str:
        """The address that is meant when none is given; empty if there is none."""
        port = f":{self.port}" if self.port else ""
        return f"{self.protocol}://{self.host}{port}" if self.host else ""


_SCHEMES: Final = {
    "ollama": _Scheme("http", "127.0.0.1", 11434),
    "llamacpp": _Scheme("http", "127.0.0.1", 8080, "/v1"),
    "lmstudio": _Scheme("http", "127.0.0.1", 1234, "/v1"),
    "vllm": _Scheme("http", "127.0.0.1", 8000, "/v1"),
    "openai": _Scheme("https", "api.openai.com", None, "/v1"),
    "generic": _Scheme("https", None, None, "/v1"),
    "scripted": _Scheme(None),
    "local": _Scheme(None),
}
_ALIASES: Final = {"openai-compatible": "generic", "llama.cpp": "llamacpp"}
_OPTIONS: Final = {"openai": frozenset({"organization", "project"})}


BackendType = Literal[
    "ollama", "llamacpp", "lmstudio", "vllm", "openai", "generic", "scripted", "local"
]


class DsnError(ValueError):
    """A backend is configured wrong; the message names the variable and the remedy, no key."""


class BackendConfig(Noun):
    """A backend as it is configured."""

    name: Annotated[str, Field(pattern=BACKEND_NAME.pattern)]
    type: BackendType
    url: str = ""
    """Base address without credentials, `/v1` included where there is one; for `local` the path
    of a folder. Without it, the default of the type."""
    key: SecretStr | None = None
    slots: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Jobs of a kind at once; None: what the server tells, or a default."""
    slots_by_kind: dict[Kind, Annotated[int, Field(ge=0, le=4096)]] = Field(default_factory=dict)
    idle_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds of silence that are too many once an answer has begun."""
    options: dict[str, str] = Field(default_factory=dict)
    """What only this type of backend knows."""

    @model_validator(mode="before")
    @classmethod
    def _complete_url(cls, fields: Any) -> Any:
        """Fill in the default address or path, so that a table of fleet.toml may leave it out."""
        scheme = _SCHEMES.get(fields.get("type", "")) if isinstance(fields, dict) else None
        if scheme is None or scheme.protocol is None:
            return fields
        url = str(fields.get("url") or "") or scheme.default
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("url holds a key; write it into the field key")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url must look like http://host:port")
        return {
            **fields,
            "url": url.rstrip("/")
            if parts.path.strip("/")
            else f"{parts.scheme}://{parts.netloc}{scheme.path}",
        }

    def slots_for(self, kind: Kind) -> int | None:
        """Configured slots of a kind, if any."""
        return self.slots_by_kind.get(kind, self.slots)


def parse(variable: str, dsn: str) -> BackendConfig:
    """Read `variable=dsn`; the name is the variable's, without `LLM_`, in small letters.

    Raises DsnError.
    """
    name = variable.removeprefix(VARIABLE_PREFIX).lower()
    parts = _split(variable, dsn.strip())
    type, _, override = parts.scheme.partition("+")
    type = _ALIASES.get(type, type)
    if type not in _SCHEMES:
        raise DsnError(f"{variable}: no type {type!r}; there are {', '.join(_SCHEMES)}")
    if override not in {"", "http", "https"}:
        raise DsnError(f"{variable}: +{override} is neither +http nor +https")
    fields = {"name": name, "type": type, **_query(variable, type, parts.query)}
    if key := unquote(parts.password or parts.username or ""):
        fields["key"] = SecretStr(key)
    fields["url"] = _address(variable, type, override, parts)
    return _made(variable, fields)


def from_environment(environ: Mapping[str, str]) -> list[BackendConfig]:
    """Every backend that the environment names; values of `LLM_...` without `://` are not ours.

    Raises DsnError for one that is wrong, or two of one name.
    """
    found: dict[str, BackendConfig] = {}
    for variable, value in sorted(environ.items()):
        if variable in WELL_KNOWN and value:
            config = _well_known(variable, value)
        elif variable.startswith(VARIABLE_PREFIX) and "://" in value:
            config = parse(variable, value)
        else:
            continue
        if config.name in found:
            raise DsnError(f"{variable}: another variable names the backend {config.name!r}, too")
        found[config.name] = config
    return list(found.values())


def _well_known(variable: str, value: str) -> BackendConfig:
    type = WELL_KNOWN[variable]
    protocol, separator, rest = value.strip().partition("://")
    if not separator:
        protocol, rest = "http", value.strip()
    if protocol not in {"http", "https"}:
        raise DsnError(f"{variable}: an address looks like http://host:port")
    return parse(variable, f"{type}+{protocol}://{rest}").model_copy(update={"name": type})


def _split(variable: str, dsn: str) -> SplitResult:
    scheme, separator, _ = dsn.partition("://")
    if not separator or not scheme:
        raise DsnError(f"{variable}: a backend looks like ollama://host:11434")
    try:
        parts = urlsplit(dsn)
        _ = parts.port
    except ValueError:
        raise DsnError(f"{variable}: host or port is no address; try ollama://host:11434") from None
    if parts.fragment or "@" in parts.path:
        raise DsnError(f"{variable}: write / # ? and @ of a key percent-encoded, / as %2F")
    return parts


def _address(variable: str, type: str, override: str, parts: SplitResult) -> str:
    scheme = _SCHEMES[type]
    if type == "local":
        if not parts.path.strip("/"):
            raise DsnError(f"{variable}: name the model's folder, as in local:///models/minilm")
        return unquote(parts.netloc + parts.path)
    if scheme.protocol is None:
        return ""
    host = parts.hostname or scheme.host
    if host is None:
        raise DsnError(f"{variable}: name a host, as in {type}://key@host/v1")
    if ":" in host:
        host = f"[{host}]"
    # A host of one's own has the default port of the kind, unless the protocol was overridden.
    port = parts.port or (None if override == "https" else scheme.port)
    path = parts.path.rstrip("/") or scheme.path
    return f"{override or scheme.protocol}://{host}{f':{port}' if port else ''}{path}"


def _query(variable: str, type: str, query: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    known = _OPTIONS.get(type, frozenset())
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in {"slots", "idle_s"}:
            fields[name] = value
        elif name.startswith("slots."):
            fields.setdefault("slots_by_kind", {})[name.removeprefix("slots.")] = value
        elif name in known:
            fields.setdefault("options", {})[name] = value
        else:
            names = ", ".join(["slots", "slots.<kind>", "idle_s", *sorted(known)])
            raise DsnError(f"{variable}: no option {name!r}; there are {names}")
    return fields


def _made(variable: str, fields: dict[str, Any]) -> BackendConfig:
    try:
        return BackendConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "url"
        raise DsnError(f"{variable}: {where}: {first['msg']}") from None
