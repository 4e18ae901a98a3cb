"""Settings of the relay. Read once, in a composition root."""

import os
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from contract.conversations import ConversationPolicy
from contract.requests import Retention
from contract.settings import MOST_BYTES, YEARS_S, FleetSettings, Seconds
from contract.usage import Prices

_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path")
_MOST_JOBS: Final = 10**9
_MOST_TOKENS: Final = 10**15
_MOST_MONEY: Final = 10**9


class RelaySettings(FleetSettings):
    """Settings of the relay."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """`redis://`, `rediss://` or `unix:///path`; may hold a user and a password. With TLS the
    query names files: `?ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key`."""
    log_ttl_s: Seconds = 86400
    """Seconds that a record and its log live after the job's end."""
    retention: Retention = "ttl"
    """How long the texts of jobs are kept whose API key and request say nothing: `none`, seconds,
    or `ttl`, which is `log_ttl_s`. Requests may ask for less, and keys for anything."""
    retention_grace_s: Annotated[float, Field(ge=1, le=600)] = 10
    """Seconds after the end of a job with the retention `none` for which its followers can still
    read its events."""
    compact_after_s: Annotated[float, Field(ge=0, le=YEARS_S)] = 300
    """Seconds after a job's end at which its log and record are compacted, in which they take a
    quarter of the memory or less; readers notice nothing. Five at most from half of
    `memory_high_water` on. 0: never."""
    memory_high_water: Annotated[float, Field(ge=0.2, le=1)] = 0.8
    """The part of Redis's `maxmemory` from which on ended jobs are removed before their time: the
    oldest of the tenants that keep most. 1: never."""
    memory_keeps_s: Annotated[float, Field(ge=1, le=YEARS_S)] = 300
    """Seconds after its end for which a job is kept also then."""
    log_cap_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 64 * 2**20
    """Bytes that one job may append to its log; more is a `failed` with `log_full`."""
    max_images: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Images that the messages of a chat may have."""
    max_images_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 48 * 2**20
    """Bytes that these may have together, as files; those that a worker fetches count, too."""
    queue_limit: Annotated[int, Field(ge=1, le=_MOST_JOBS)] = 100_000
    """Jobs that may wait in one queue."""
    queue_limit_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] = 500_000_000
    """Estimated tokens that may wait in one queue."""
    queue_limit_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] = 2**30
    """Bytes of requests that may be kept for one queue, of jobs that wait, are scheduled, or are
    between two attempts; and at most a quarter of Redis's `maxmemory`."""
    tenant_limit: Annotated[int | None, Field(ge=1, le=_MOST_JOBS)] = None
    """Jobs of one tenant that may wait in one queue, if its API key sets no limit."""
    tenant_limit_tokens: Annotated[int | None, Field(ge=1, le=_MOST_TOKENS)] = None
    """Estimated tokens of one tenant that may wait in one queue, if its API key sets no limit."""
    tenant_limit_bytes: Annotated[int | None, Field(ge=1024, le=MOST_BYTES)] = None
    """Bytes of requests of one tenant that may be kept for one queue, if its API key sets no
    limit."""
    tenant_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The part that one tenant may hold of what it holds in a queue and what is free there, and of
    the room for files. Below 1 a tenant that holds nothing gets a job in even if the queue is full.
    1: no such limit; so it is for the tenant `default`, whose are all jobs while there are no API
    keys."""
    tenant_tokens_minute: Annotated[int | None, Field(ge=1, le=_MOST_TOKENS)] = None
    """Tokens that a tenant may use in 60 seconds, if its API key sets no limit."""
    tenant_tokens_day: Annotated[int | None, Field(ge=1, le=_MOST_TOKENS)] = None
    """Tokens that a tenant may use in a day (UTC), if its API key sets no limit."""
    tenant_spend_day: Annotated[float | None, Field(gt=0, le=_MOST_MONEY)] = None
    """Money that a tenant may spend in a day (UTC), if its API key sets no limit."""
    tenant_spend_month: Annotated[float | None, Field(gt=0, le=_MOST_MONEY)] = None
    """Money that a tenant may spend in a month (UTC), if its API key sets no limit."""
    answer_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] = 4096
    """Tokens that are reserved for the answer to a chat without `max_tokens` of a tenant with such
    a limit; the answer ends there, with `finish_reason: length`."""
    usage_ttl_s: Seconds = 400 * 86400
    """Seconds for which the usage of a day is kept."""
    usage_rows: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Rows of one tenant's usage of a day: each is a model of a backend with a kind of job. Further
    ones are added up as `other`."""
    prices: Prices = Field(default_factory=dict)
    """What models cost by name, as JSON: `{"gpt-4o": {"input": 2.5, "output": 10}}` are prices of a
    million tokens; `cached_input` and `image` may be added, `*` in a name stands for any text, and
    `cloud/gpt-4o` is the model of one backend."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """Of all prices and limits."""
    affinity_patience_s: Annotated[float, Field(ge=0, le=YEARS_S)] = 20
    """Seconds for which jobs of a model in memory may overtake the head of their queue."""
    conversation_policy: ConversationPolicy = "parallel"
    """What a message does while an earlier one of its conversation waits or runs, if its request
    says nothing: `parallel`, `queue`, `reject` or `interrupt`. Agents send several requests of one
    session at once."""
    conversation_patience_s: Annotated[float, Field(ge=0, le=YEARS_S)] = 10
    """Seconds for which a message waits for the address that has its conversation's prefix, while
    another one is free. 0: it never waits."""
    conversation_ttl_s: Seconds = 3600
    """Seconds after a message's start for which its conversation's address is remembered."""
    conversations_kept: Annotated[int, Field(ge=1, le=10**7)] = 20_000
    """Conversations of a queue whose address is remembered; of more, the longest unused are
    forgotten, and of a tenant with more than `tenant_share`, its own oldest."""
    dead_ttl_s: Seconds = 7 * 86400
    """Seconds that a dead letter's record and log are kept."""
    remember_s: Annotated[float, Field(ge=0, le=YEARS_S)] = 30 * 86400
    """Seconds for which a backend is known after its last worker; 0: only while one is live."""
    lease_s: Seconds = 15
    """Seconds that a worker holds a job without renewing."""
    renew_s: Seconds = 4
    """Seconds between two renewals; less than `lease_s`."""
    reap_s: Seconds = 3
    """Seconds between two checks for expired leases."""
    command_timeout_s: Seconds = 5
    """Seconds that a command may take before its connection counts as lost. The sum of this and
    `renew_s` should be well below `lease_s`, so that a half-open connection costs no lease."""

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, url: SecretStr) -> SecretStr:
        # The `fleet` command imports this module and needs no Redis library to start.
        from redis.asyncio.connection import parse_url  # noqa: PLC0415

        try:
            options: dict[str, Any] = {**parse_url(url.get_secret_value())}
        except ValueError:
            raise ValueError("not a redis://, rediss:// or unix:// URL") from None
        for name in _TLS_FILES:
            if name in options and not os.access(options[name], os.R_OK):
                raise ValueError(f"{name} names no file that can be read: {options[name]}")
        return url

    @model_validator(mode="after")
    def _renews_before_the_lease_ends(self) -> Self:
        if self.renew_s >= self.lease_s:
            raise ValueError(
                f"FLEET_RENEW_S = {self.renew_s:g}: give a number below FLEET_LEASE_S = "
                f"{self.lease_s:g}, because a lease that is renewed later has expired"
            )
        return self


def address(settings: RelaySettings) -> str:
    """Where Redis is, without user and password: `host:port`, or the path of a unix socket."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    if parts.scheme == "unix":
        return parts.path
    return f"{parts.hostname or '127.0.0.1'}:{parts.port or 6379}"
