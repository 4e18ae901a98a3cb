"""Settings of a worker process besides those of the relay; read once, in app.py."""

from pathlib import Path
from secrets import token_hex
from typing import Annotated, get_args

from pydantic import Field, field_validator

from contract.errors import InvalidSetting
from contract.requests import Kind
from contract.settings import DAY_S, MOST_BYTES, YEARS_S, Seconds
from relay.settings import RelaySettings
from telemetry.settings import MetricsSettings, TraceSettings, demand_key


class WorkerSettings(MetricsSettings, TraceSettings):
    """Settings of one worker process; it serves one backend."""

    worker_backend: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")] = "scripted"
    """Name of the backend that this process serves."""
    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = Field(
        default_factory=lambda known: f"{known.get('worker_backend', 'worker')}-{token_hex(4)}"
    )
    """Unique per start, so that leases of a former process are not taken for those of this one.
    Tenants see it, so the default tells neither host nor process."""
    worker_kinds: str = ""
    """Kinds of jobs to serve, as in `chat,embed`; empty: all that the backend can do."""
    metrics_address: str = "127.0.0.1"
    """Address on which a worker serves its metrics; another one than loopback needs a key."""
    metrics_port: Annotated[int | None, Field(ge=0, le=65535)] = None
    """Port on which a worker serves its metrics; 0 takes a free one, without it none is served."""
    drain_s: Annotated[float, Field(ge=0, le=DAY_S)] = 30
    """Seconds for which streams continue after SIGTERM before they are handed over."""
    report_s: Seconds = 5
    """Seconds between two reports to the roster."""
    check_s: Seconds = 15
    """Seconds between two probes of the backend's health and models."""
    health_file: Path | None = None
    """File that is written with every report, for the health check of a container; `fleet worker
    health` reads it."""
    pod_name: Annotated[str | None, Field(pattern=r"^[a-z0-9.-]{1,253}$")] = None
    """Pod of this worker, whose deletion cost it keeps at its number of jobs; none: not."""
    pod_namespace: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")] = "default"
    """Kubernetes namespace of the pod."""
    kubernetes_url: str = "https://kubernetes.default.svc"
    """Where the API of Kubernetes is, for the pod's deletion cost."""
    service_account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Folder with `token` and `ca.crt` for that API."""
    retry_patience: Annotated[int, Field(ge=0, le=1000)] = 1000
    """Attempts up to which a busy, loading or absent backend uses up none of `max_attempts`: some
    eight hours, if the job's deadline does not end it first."""
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Failures in a row after which the circuit of an endpoint or model opens."""
    breaker_open_s: Seconds = 5
    """Seconds for which the circuit stays open; doubled each time it opens again, up to 60."""
    images_at_once_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 128 * 2**20
    """Bytes of fetched images, as files, that all chats of a worker hold at once; others wait for a
    minute, then their jobs are tried again later. One tenant has half of it at most."""
    private_images: bool = False
    """Whether images of a chat may be fetched from addresses that are not public."""
    pass_image_urls: bool = False
    """Whether a backend that can fetches the images of a chat itself, from any address that it can
    reach."""
    embed_pack: bool = True
    """Whether texts of several embed jobs share requests to the backend."""
    embed_pack_texts: Annotated[int, Field(ge=1, le=8192)] = 256
    """Texts that one request has at most; a backend may take fewer."""
    embed_pack_tokens: Annotated[int, Field(ge=1, le=10**9)] = 16384
    """Estimated tokens that one request has at most, each text counted as the longest in it."""
    embed_pack_wait_s: Annotated[float, Field(ge=0, le=1)] = 0.005
    """Seconds that a text waits for others, and only while the backend is busy."""
    embed_requests: Annotated[int, Field(ge=1, le=1000)] = 8
    """Embed requests at once to one address, where its slots allow as many."""
    embed_cache_ttl_s: Annotated[float, Field(ge=0, le=YEARS_S)] = 0
    """Seconds for which a computed vector is reused for the same text; 0: not at all."""
    embed_cache_shared: bool = False
    """Whether tenants share computed vectors: times then tell one whether another has embedded a
    text."""
    watchdog_s: Seconds = 60
    """Seconds without an answer from Redis, or without a ticket while some wait, before exit; at
    least FLEET_RENEW_S + FLEET_COMMAND_TIMEOUT_S."""

    @field_validator("worker_kinds")
    @classmethod
    def _are_kinds(cls, kinds: str) -> str:
        unknown = wanted_kinds(kinds) - set(get_args(Kind))
        if unknown:
            raise ValueError(
                f"{', '.join(sorted(unknown))} is no kind of jobs: give some of "
                f"{', '.join(get_args(Kind))}, with commas between, or leave it empty for all"
            )
        return kinds


def wanted_kinds(kinds: str) -> set[str]:
    """The kinds that the setting `worker_kinds` names; none: all."""
    return {kind.strip() for kind in kinds.split(",") if kind.strip()}


def demand_agreement(settings: WorkerSettings, relay: RelaySettings) -> None:
    """Check that these settings agree with those of the relay; raises InvalidSetting if not.

    Metrics that other machines may read need a key.

    FLEET_WATCHDOG_S must be at least the time after which a renewal without an answer of Redis has
    timed out, or the first one would end the worker.
    """
    demand_key(settings)
    least_s = relay.renew_s + relay.command_timeout_s
    if settings.watchdog_s < least_s:
        raise InvalidSetting(
            f"FLEET_WATCHDOG_S = {settings.watchdog_s:g}: give a number of at least FLEET_RENEW_S "
            f"+ FLEET_COMMAND_TIMEOUT_S = {least_s:g}, because the first renewal that Redis does "
            "not answer would end the worker"
        )
