"""Backend configuration: `BackendConfig`, and its one-line form, the DSN.

    LLM_BOX=ollama://10.0.0.5:11434?slots=4
    <type>[+http|+https]://[key@]host[:port][,host[:port]...][/path][?slots=4&idle_s=60]

Local servers default to http, hosted ones to https; `+http` and `+https` override. Keys are
percent-decoded. Errors never repeat the DSN: it may hold a key. Default hosts, ports, paths and
options of each type are the tables `_SCHEMES` and `_OPTIONS`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator

from contract.redis_keys import BACKEND_NAME
from contract.requests import Kind
from contract.wire import WireModel
from workers.backends.declarations import DeclaredEndpoint, DeclaredModel

VARIABLE_PREFIX: Final = "LLM_"
WELL_KNOWN: Final = {"OLLAMA_URL": "ollama", "LLAMACPP_URL": "llamacpp", "LMSTUDIO_URL": "lmstudio"}
"""Variables that hold the http URL of a server, by the type that their name implies."""

MAX_ADDRESSES: Final = 32
"""Addresses of one backend."""
_AUTHORITY: Final = re.compile(r"(?P<head>[^:/?#]*://(?:[^/?#]*@)?)(?P<hosts>[^/?#]*)(?P<rest>.*)")
VERTEX_VERSION_PATH: Final = "/v1beta1"
_GLOBAL: Final = "global"
_MULTI_REGIONS: Final = frozenset({"us", "eu"})


class _Scheme(NamedTuple):
    protocol: str | None
    """None for backends without a server."""
    host: str | None = None
    port: int | None = None
    path: str = ""
    other_paths: tuple[str, ...] = ()
    """Of the same server's other interfaces, under which it is known as well; the longer first."""

    @property
    def default(self) -> str:
        """The default address of the type; "" if it has none."""
        port = f":{self.port}" if self.port else ""
        return f"{self.protocol}://{self.host}{port}" if self.host else ""


_SCHEMES: Final = {
    "ollama": _Scheme("http", "127.0.0.1", 11434, other_paths=("/v1", "/api")),
    "llamacpp": _Scheme("http", "127.0.0.1", 8080, "/v1"),
    "llamacpp-router": _Scheme("http", "127.0.0.1", 8080, "/v1"),
    "llamaswap": _Scheme("http", "127.0.0.1", 8080, "/v1"),
    "lmstudio": _Scheme("http", "127.0.0.1", 1234, "/v1", ("/api/v1", "/api/v0", "/api")),
    "vllm": _Scheme("http", "127.0.0.1", 8000, "/v1"),
    "openai": _Scheme("https", "api.openai.com", None, "/v1"),
    "generic": _Scheme("https", None, None, "/v1"),
    "localai": _Scheme("http", "127.0.0.1", 8080, "/v1"),
    "tei": _Scheme("http", "127.0.0.1", 3000, "/v1"),
    "infinity": _Scheme("http", "127.0.0.1", 7997),
    "sd": _Scheme("http", "127.0.0.1", 1234, "", ("/sdcpp/v1", "/sdapi/v1", "/v1")),
    "a1111": _Scheme("http", "127.0.0.1", 7860, "", ("/sdapi/v1", "/sdapi")),
    "gemini": _Scheme(
        "https", "generativelanguage.googleapis.com", None, "/v1beta", ("/v1beta/openai",)
    ),
    "vertex": _Scheme("https", "aiplatform.googleapis.com", None, VERTEX_VERSION_PATH),
    "scripted": _Scheme(None),
    "local": _Scheme(None),
    "llama": _Scheme(None),
    "openvino": _Scheme(None),
}
_PATHS: Final = {
    "local": "name the model's folder, as in local:///models/minilm",
    "llama": "name a GGUF file or a folder of them, as in llama:///models/qwen.gguf",
    "openvino": "name an exported model's folder or a GGUF file, as in openvino:///models/qwen",
}
"""Types whose address is a path, and the remedy if it is missing."""
_ALIASES: Final = {
    "openai-compatible": "generic",
    "llama.cpp": "llamacpp",
    "llama-swap": "llamaswap",
    "sd-server": "sd",
}
_SINGLE: Final = frozenset({"endpoints", "vertex"})
"""Networked types without a list of addresses."""
_OPTIONS: Final = {
    "openai": frozenset({"organization", "project"}),
    # 1: runs with VLLM_SERVER_DEV_MODE=1, so that it can be put to sleep.
    "vllm": frozenset({"dev"}),
    # `thinking`: its field for the reasoning of assistant messages.
    "generic": frozenset({"images", "rerank", "thinking"}),
    "vertex": frozenset({"project", "location", "credentials", "quota_project"}),
    "llama": frozenset({"n_ctx", "threads", "gpu_layers", "batch", "pooling"}),
    "openvino": frozenset({"device", "n_ctx", "threads", "pooling"}),
    # `room`: models in memory at once.
    "scripted": frozenset({"room", "evicts", "may_die"}),
}

BackendType = Literal[
    "ollama", "llamacpp", "llamacpp-router", "llamaswap", "lmstudio", "vllm", "openai", "generic",
    "localai", "tei", "infinity", "endpoints", "sd", "a1111", "gemini", "vertex", "scripted",
    "local", "llama", "openvino",
]  # fmt: skip


class DsnError(ValueError):
    """Invalid configuration; the message names the variable and the remedy, never the key."""


class BackendConfig(WireModel):
    """The configuration of one backend, from a DSN or a table of fleet.toml."""

    name: Annotated[str, Field(pattern=BACKEND_NAME.pattern)]
    type: BackendType
    url: str = ""
    """Base address without credentials, `/v1` included where there is one; for `local`,
    `llama` and `openvino` a path. Without it, the default of the type."""
    urls: tuple[str, ...] = ()
    """Several equivalent base addresses (workers/endpoints/endpoints.py); `url` is the first."""
    key: SecretStr | None = None
    slots: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Concurrent jobs of a kind per address; None: reported by the server, or the default."""
    slots_by_kind: dict[Kind, Annotated[int, Field(ge=0, le=4096)]] = Field(default_factory=dict)
    idle_s: Annotated[float, Field(gt=0)] = 120.0
    """Idle timeout in seconds, after the first token of a response."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of this type of backend."""
    endpoints: tuple[DeclaredEndpoint, ...] = ()
    """For type `endpoints`: one address per model."""
    models: dict[str, DeclaredModel] = Field(default_factory=dict)
    """Facts that the server does not report, by model name."""

    @model_validator(mode="before")
    @classmethod
    def _complete_url(cls, fields: Any) -> Any:
        """Fill in the default address or path, which a table of fleet.toml may omit."""
        if isinstance(fields, dict) and fields.get("type") in _ALIASES:
            fields = {**fields, "type": _ALIASES[fields["type"]]}
        if isinstance(fields, dict) and fields.get("type") == "vertex":
            fields = _with_vertex_address(fields)
        scheme = _SCHEMES.get(fields.get("type", "")) if isinstance(fields, dict) else None
        if scheme is None or scheme.protocol is None:
            return fields
        urls = _base_urls(fields, scheme)
        return {**fields, "url": urls[0], "urls": urls if len(urls) > 1 else ()}

    @model_validator(mode="after")
    def _check_urls(self) -> Self:
        """Refuse a list of addresses for types that have none."""
        if self.urls and (self.type in _SINGLE or not _SCHEMES[self.type].protocol):
            raise ValueError(f"urls: a backend of type {self.type} has no list of addresses")
        _check_distinct(self.urls)
        return self

    @model_validator(mode="after")
    def _check_endpoints(self) -> Self:
        """Require endpoints for type `endpoints` only, each with a distinct name."""
        if bool(self.endpoints) != (self.type == "endpoints"):
            raise ValueError("type endpoints has a list of endpoints, and no other type has")
        names = [endpoint.name for endpoint in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError("endpoints: two have one name; give them labels")
        return self

    @property
    def each(self) -> dict[str, "BackendConfig"]:
        """A configuration per address, by address; the key is "" for a backend without one."""
        return {url: self.model_copy(update={"url": url}) for url in self.urls or (self.url,)}

    def slots_for(self, kind: Kind) -> int | None:
        """The configured slots of a kind, None if not configured."""
        return self.slots_by_kind.get(kind, self.slots)


def parse(variable: str, dsn: str) -> BackendConfig:
    """The configuration of `variable=dsn`; its name is the variable without `LLM_`, lower case.

    Raises DsnError.
    """
    try:
        dsns = _split_hosts(dsn.strip())
    except ValueError as error:
        raise DsnError(f"{variable}: {error}") from None
    first, *others = [_at_one_host(variable, each) for each in dsns]
    if not others:
        return first
    urls = (first.url, *(other.url for other in others))
    return _validated(variable, {**dict(first), "urls": urls})


def _at_one_host(variable: str, dsn: str) -> BackendConfig:
    name = variable.removeprefix(VARIABLE_PREFIX).lower()
    parts = _split(variable, dsn)
    type, _, override = parts.scheme.partition("+")
    type = _ALIASES.get(type, type)
    if type not in _SCHEMES:
        # It may be a key in the wrong place, so it is not repeated.
        raise DsnError(f"{variable}: no such type; known types: {', '.join(_SCHEMES)}")
    if override not in {"", "http", "https"}:
        raise DsnError(f"{variable}: the + must be followed by http or https")
    fields = {"name": name, "type": type, **_query(variable, type, parts.query)}
    if key := _key(type, parts):
        fields["key"] = SecretStr(key)
    fields["url"] = _address(variable, type, override, parts)
    if type == "vertex" and parts.username:
        fields.setdefault("options", {}).setdefault("project", unquote(parts.username))
    return _validated(variable, fields)


def from_environment(environ: Mapping[str, str]) -> list[BackendConfig]:
    """The backends of the environment; `LLM_...` variables without `://` are ignored.

    Raises DsnError for an invalid one, or two with one name.
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
        raise DsnError(f"{variable}: host or port is invalid; try ollama://host:11434") from None
    if parts.fragment or "@" in parts.path or "@" in parts.query:
        raise DsnError(f"{variable}: write / # ? and @ of a key percent-encoded, / as %2F")
    return parts


def _key(type: str, parts: SplitResult) -> str:
    """The userinfo: a key, for A1111 `user:password`, for Vertex the password of `project:key`."""
    if type == "a1111" and parts.username:
        return f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    if type == "vertex":
        return unquote(parts.password or "")
    return unquote(parts.password or parts.username or "")


def _address(variable: str, type: str, override: str, parts: SplitResult) -> str:
    scheme = _SCHEMES[type]
    if type in _PATHS:
        if not parts.path.strip("/"):
            raise DsnError(f"{variable}: {_PATHS[type]}")
        return unquote(parts.netloc + parts.path)
    if scheme.protocol is None:
        return ""
    host = parts.hostname or scheme.host
    if host is None:
        raise DsnError(f"{variable}: name a host, as in {type}://key@host/v1")
    if ":" in host:
        host = f"[{host}]"
    # The default port of the type, unless the protocol was overridden.
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
            raise DsnError(f"{variable}: no such option; known options: {names}")
    return fields


def _validated(variable: str, fields: dict[str, Any]) -> BackendConfig:
    try:
        return BackendConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "url"
        raise DsnError(f"{variable}: {where}: {first['msg']}") from None


def _split_hosts(dsn: str) -> list[str]:
    """A DSN per host, with the same key, path and options; raises ValueError for an empty host."""
    found = _AUTHORITY.fullmatch(dsn)
    if found is None or "," not in found["hosts"]:
        return [dsn]
    hosts = found["hosts"].split(",")
    if not all(hosts):
        raise ValueError("an empty host between commas")
    return [found["head"] + host + found["rest"] for host in hosts]


def _base_urls(fields: Mapping[str, Any], scheme: _Scheme) -> tuple[str, ...]:
    """The base URLs of the fields `urls` or `url`, or the default; raises ValueError."""
    url = [str(fields["url"])] if fields.get("url") else []
    given = [str(each) for each in fields.get("urls") or url or [scheme.default]]
    if url and _base_url(url[0], scheme) != _base_url(given[0], scheme):
        raise ValueError("urls: write all addresses there, and none into url")
    return tuple(_base_url(each, scheme) for each in given)


def _base_url(url: str, scheme: _Scheme) -> str:
    """The base URL, with the path of its type if it has none of its own; raises ValueError."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("url holds a key; write it into the field key")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("url must look like http://host:port")
    if not parts.path.strip("/"):
        return f"{parts.scheme}://{parts.netloc}{scheme.path}"
    base = url.rstrip("/")
    other = next((path for path in scheme.other_paths if base.endswith(path)), None)
    return base if other is None else base.removesuffix(other).rstrip("/") + scheme.path


def _check_distinct(urls: Sequence[str]) -> None:
    """Raises ValueError for duplicate addresses, or more than `MAX_ADDRESSES`."""
    if len(set(urls)) != len(urls):
        raise ValueError("an address is listed twice")
    if len(urls) > MAX_ADDRESSES:
        raise ValueError(
            f"more than {MAX_ADDRESSES} addresses; give the others a backend of their own"
        )


def _vertex_host(location: str) -> str:
    """The host of a Vertex location (python-genai, `_api_client.py`)."""
    if location == _GLOBAL:
        return "aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def _vertex_address(url: str, options: dict[str, str]) -> tuple[str, dict[str, str]]:
    """URL and options, both with the location; a host without a dot is a location."""
    host = urlsplit(url).hostname or ""
    location = options.get("location")
    if not host or ("." not in host and host != "localhost" and ":" not in host):
        location = location or host or _GLOBAL
        url = f"https://{_vertex_host(location)}{VERTEX_VERSION_PATH}"
    return url, {**options, "location": location or _GLOBAL}


def _with_vertex_address(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Vertex configuration, with the address of its location."""
    url, options = _vertex_address(str(fields.get("url") or ""), dict(fields.get("options") or {}))
    return {**fields, "url": url, "options": options}
