"""Settings of the HTTP server: addresses, limits, intervals."""

import re
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from api_shim.tokens.token_settings import TokenSettings
from contract.aliases.alias_table import Alias, demand_aliases
from contract.errors import InvalidRequest
from contract.redis_keys import BACKEND_NAME, QUEUE_NAME, queue_name
from contract.requests import LONGEST_DEADLINE_S, OnNoWorker
from contract.roster import BackendReport, Capability, KnownBackend, ModelReport
from contract.settings import DAY_S, MOST_BYTES, TABLES, YEARS_S, Seconds, default_folder
from contract.wire import WireModel
from relay.scheduling.run_windows import MOST_WINDOWS, parsed
from relay.settings import RelaySettings
from telemetry.settings import MetricsSettings, TraceSettings

_STORES: Final = frozenset(
    {
        "abfs", "abfss", "adl", "az", "box", "dbfs", "dropbox", "file", "ftp", "gcs", "gdrive",
        "gs", "hdfs", "hf", "lakefs", "local", "memory", "oci", "oss", "s3", "s3a", "sftp", "smb",
        "ssh", "tos", "webdav", "webhdfs",
    }
)  # fmt: skip
"""Schemes of fsspec under which objects can be written, not only read."""


def _is_plugin(scheme: str) -> bool:
    """Whether an installed plugin of fsspec added this scheme."""
    from fsspec.registry import available_protocols, known_implementations  # noqa: PLC0415 - slow

    return scheme in set(available_protocols()) - set(known_implementations)


_HOST: Final = re.compile(r"(?=.*[a-z0-9])[a-z0-9._*-]{1,253}")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def _origin(text: str) -> str:
    """An origin as browsers send it; raises ValueError."""
    origin = text.strip().lower().removesuffix("/")
    if origin in {"*", "null"}:
        return origin
    scheme, separator, rest = origin.partition("://")
    if not (separator and scheme and rest) or urlsplit(f"//{rest}").netloc != rest or "@" in rest:
        raise ValueError(
            f"{text!r} is no origin: give a scheme, a host and a port if it is not the usual one, "
            "as in https://chat.example.com or http://localhost:*; null for a page without one, "
            "* for all pages"
        )
    if not origin.isascii():
        raise ValueError(f"{text!r}: give the host as browsers send it, as in xn--mnchen-3ya.de")
    return origin.removesuffix(_DEFAULT_PORTS.get(scheme, "\0"))


class ConfiguredBackend(WireModel):
    """A backend that the shim knows before any worker does."""

    type: str = "unknown"
    """As in a DSN: `ollama`, `vllm`."""
    capabilities: tuple[Capability, ...] = ("chat",)
    """Kinds of jobs that its workers take."""
    models: tuple[ModelReport | str, ...] = ()
    """Names, or names with what they can do: `{"name": "llava", "traits": ["chat", "vision"]}`."""
    slots: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Jobs of a kind that one worker runs at once."""

    def known_as(self, name: str) -> KnownBackend:
        """What is known of the backend of this name."""
        models = tuple(ModelReport(name=m) if isinstance(m, str) else m for m in self.models)
        return KnownBackend(
            backend=BackendReport(
                name=name, type=self.type, endpoint="", healthy=False,
                capabilities=self.capabilities, models=models,
            ),
            slots={queue_name(name, kind): self.slots for kind in self.capabilities},
        )  # fmt: skip


def _is_window(text: str) -> str:
    parsed(text)
    return " ".join(text.split())


class ConfiguredQueue(WireModel):
    """When a queue runs."""

    windows: Annotated[
        tuple[Annotated[str, Field(max_length=120), AfterValidator(_is_window)], ...],
        Field(max_length=MOST_WINDOWS),
        BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    ]
    """Its run windows, each as in `mon-fri 22:00-06:00 Europe/Berlin`; none: at any time."""


class ShimSettings(RelaySettings, MetricsSettings, TraceSettings, TokenSettings):
    """The relay's settings and the shim's own; built once, in `__main__` or in a test."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    """Port to listen on; 0 takes a free one."""
    insecure: bool = False
    """Whether to serve clients on other machines while no API key is configured."""
    first_key: bool = False
    """Whether to make an admin's API key at the start if there is no key, and print it once."""
    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names under which clients call this shim, with commas between, as in
    `fleet.example.com,*.lan`. Others are refused, but for addresses, names of this machine and
    names without a dot; without this setting only where no API key is asked for."""
    origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of web pages that may call this shim from a browser, with commas between, as in
    `https://chat.example.com,http://localhost:*`; `*`: every page that someone opens."""
    key_max_age_s: Annotated[float, Field(gt=0, le=60)] = 3
    """Seconds for which the API keys are cached: a revoked one is refused by then."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 32 * 2**20
    """Bytes that the body of a request may have; more is a 413."""
    max_bodies_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 128 * 2**20
    """Bytes of bodies of more than 128 KiB that the process reads at once; others wait for ten
    seconds, then get a 503. One tenant has half of it at most, and a slow body (more than a minute
    for all of it) loses its room to others. Uploaded files are not counted."""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Connections that the process has at once, WebSockets among them; more get a 503. Fewer if it
    may not open as many files."""
    max_connections_per_address: Annotated[int, Field(ge=0, le=1_000_000)] = 1024
    """Connections of one address, or IPv6 network; more get a 429. 0: no bound. Addresses of this
    machine have none."""
    max_calls_per_key: Annotated[int, Field(ge=0, le=1_000_000)] = 2048
    """Requests, streams and WebSockets that are open with one API key; more get a 429. 0: no bound.
    """
    head_timeout_s: Annotated[float, Field(ge=1, le=3600)] = 10
    """Seconds for the head of a request, from its first byte or from the start of a connection, and
    the time over which `min_upload_bytes_s` is measured."""
    min_upload_bytes_s: Annotated[int, Field(ge=0, le=MOST_BYTES)] = 500
    """Bytes a second at which a body must come, as the mean of each `head_timeout_s`; slower is a
    408. 0: no bound."""
    write_timeout_s: Annotated[float, Field(ge=1, le=DAY_S)] = 60
    """Seconds after which a client that reads nothing of what it is sent is disconnected. Its job
    stays as its disconnect policy says; a stream of events continues at its cursor."""
    keepalive_s: Seconds = 15
    """Seconds of silence after which a stream sends a keep-alive."""
    connection_idle_s: Annotated[int, Field(ge=1, le=3600)] = 75
    """Seconds that an idle connection stays open: longer than proxies (60 s) and HTTP clients
    (httpx: 5 s) keep theirs, which might otherwise send a request as it closes."""
    place_every_s: Seconds = 2
    """Seconds between two reads of a waiting job's position; shared by its followers."""
    roster_max_age_s: Annotated[float, Field(ge=0, le=DAY_S)] = 1
    """Seconds for which an enqueue may use the cached roster."""
    on_no_worker: OnNoWorker = "wait"
    """Whether requests for a known backend `wait` for a worker to start, or `refuse`: 503, if they
    do not say it themselves."""
    busy_wait_s: Annotated[float, Field(ge=0, le=LONGEST_DEADLINE_S)] = 30
    """Seconds for which a job that ends with its client's connection is retried while its backend
    is busy (429, overloaded), if its request does not say it; then the client gets that error."""
    known_backends: dict[Annotated[str, Field(pattern=BACKEND_NAME.pattern)], ConfiguredBackend] = (
        Field(default_factory=dict)
    )
    """Backends for which jobs may wait although no worker has ever reported them, by name, as in
    `{"box": {"capabilities": ["chat"], "models": ["llama3.2"], "slots": 4}}`."""
    aliases: dict[str, Alias] = Field(default_factory=dict)
    """Names that stand for models, as in `{"fast": {"model": "qwen3:8b", "backend": "box",
    "default": {"temperature": 0.2}, "fallbacks": ["qwen3:4b"]}, "claude-*": "qwen3-coder"}`; in
    fleet.toml tables `[alias.fast]`. Admins add more at run time."""
    queues: dict[Annotated[str, Field(pattern=QUEUE_NAME)], ConfiguredQueue] = Field(
        default_factory=dict
    )
    """Run windows of queues, as in `{"box.embed": {"windows": ["22:00-06:00 Europe/Berlin"]}}`; in
    fleet.toml tables `[queue."box.embed"]`. They are set when a shim starts, unless it has set the
    same before; admins may change them then."""
    reconnect_ms: Annotated[int, Field(ge=0, le=1000 * DAY_S)] = 1000
    """Milliseconds that a browser waits before it reconnects to a stream (SSE `retry`)."""
    shutdown_s: Annotated[int, Field(ge=1, le=DAY_S)] = 5
    """Seconds that open requests have to finish after SIGTERM; streams end at once."""
    control: Path | None = None
    """Socket of the `fleet up` that started this shim, which adds and removes backends."""
    data_dir: Path | None = None
    """Folder of uploaded files; without it, llm-fleet in the user's data."""
    files_url: str | None = None
    """Where files are stored instead: a folder that all shims share, or `s3://bucket/prefix`."""
    max_file_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 512 * 2**20
    """Bytes that an uploaded file may have; more is a 413."""
    tenant_files_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 50 * 2**30
    """Bytes that the stored files of one tenant may have, results of batches among them; a file
    that would exceed them is a 413."""
    tenant_files: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Files that one tenant may have, however small, results of batches among them: each is a
    record of about a kilobyte in Redis. One more is a 413."""
    files_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 100 * 2**30
    """Bytes that all stored files may have; a file that would exceed them is a 503."""
    disk_reserve_bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)] = 2**30
    """Bytes that files leave free on their disk, if it is one of this machine, so that Redis can
    write there; a tenth of the disk if that is less. A file that would need them is a 503."""
    redis_dir: Path | None = None
    """Folder of this machine in which Redis writes, as `fleet up` sets it: while its disk has less
    than half of `disk_reserve_bytes` free, new jobs are refused (503), so that others can end."""
    file_ttl_s: Annotated[float, Field(ge=60, le=YEARS_S)] = 30 * 86400
    """Seconds that a file is kept, where its upload or its batch names none."""
    batch_max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    """Requests that a batch may have."""
    batch_max_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 200 * 2**20
    """Bytes that the input file of a batch may have."""
    batch_one_model: bool = False
    """Whether all requests of a batch must name one model, as OpenAI's must."""
    batch_window: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Requests that one tenant's batches may have in queues at once; the batches share it."""
    batch_missing_s: Annotated[float, Field(ge=0, le=YEARS_S)] = 30
    """Seconds that a batch waits for a model that no backend has before its requests fail."""
    batches_at_once: Annotated[int, Field(ge=1, le=256)] = 16
    """Batches that one shim drives at once; the others wait."""
    tenant_batches: Annotated[int, Field(ge=1, le=1000)] = 100
    """Batches that one tenant may run at once."""
    private_webhooks: bool = False
    """Whether webhooks may be posted to addresses that are not of the open internet; each request
    is checked."""
    webhook_timeout_s: Annotated[float, Field(ge=1, le=300)] = 15
    """Seconds that a receiver of webhooks has to answer a request."""
    webhook_retry_s: Annotated[float, Field(gt=0, le=3600)] = 2
    """Seconds until a delivery is tried again; doubled with each further failure, to an hour."""
    webhook_tries: Annotated[int, Field(ge=1, le=100)] = 14
    """Tries of a delivery; with the usual pauses they take three hours."""
    webhook_failures: Annotated[int, Field(ge=1, le=1000)] = 3
    """Deliveries in a row that fail in all tries, after which a webhook is disabled."""
    webhook_queue: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Deliveries that may wait for one receiver; further ones are dropped, and listed as that."""
    webhook_tenant_queue: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """Deliveries that may wait for all receivers of one tenant."""

    @field_validator("origins", "hosts", mode="before")
    @classmethod
    def _are_separated(cls, names: object) -> object:
        if isinstance(names, str):
            return [each.strip() for each in names.split(",") if each.strip()]
        return names

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(each.lower().removesuffix(".") for each in hosts)
        for name in names:
            if _HOST.fullmatch(name) is None:
                raise ValueError(
                    f"{name!r} is no host name: give it without scheme and port, as in "
                    "fleet.example.com or *.example.com"
                )
        return names

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_origin, origins))

    @model_validator(mode="before")
    @classmethod
    def _tables_of_the_file(cls, found: dict[str, Any]) -> dict[str, Any]:
        """Take `[alias]` and `[queue]` of fleet.toml where no variable sets `aliases`, `queues`."""
        return {name: found[table] for name, table in TABLES.items() if table in found} | found

    @field_validator("aliases")
    @classmethod
    def _can_be_used(cls, aliases: dict[str, Alias]) -> dict[str, Alias]:
        try:
            demand_aliases(aliases)
        except InvalidRequest as error:
            raise ValueError(error.message) from None
        return aliases

    @field_validator("files_url")
    @classmethod
    def _is_storage(cls, url: str | None) -> str | None:
        scheme, separator, _ = (url or "").partition("://")
        if separator and scheme not in _STORES and not _is_plugin(scheme):
            raise ValueError(
                f"give a folder, or a URL with one of the schemes {', '.join(sorted(_STORES))}"
            )
        return url

    @property
    def configured_backends(self) -> list[KnownBackend]:
        """What `known_backends` says."""
        return [each.known_as(name) for name, each in self.known_backends.items()]

    @property
    def storage_url(self) -> str:
        """Where files are stored."""
        return self.files_url or str((self.data_dir or default_folder()) / "files")
