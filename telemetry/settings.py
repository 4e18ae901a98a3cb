"""Settings of logs, metrics and traces; read once, in a process's composition root."""

import ipaddress
from typing import Annotated, Literal, Protocol

from pydantic import Field, SecretStr

from contract.errors import InvalidSetting
from contract.settings import FleetSettings
from telemetry.genai import GenAi


class LogSettings(FleetSettings):
    """How shims and workers write their logs."""

    log_format: Literal["human", "json"] = "human"
    """How shims and workers write a line of their logs: `human`, or `json` with a field a fact."""


class MetricsSettings(FleetSettings):
    """Who may read metrics, and how many names they tell apart."""

    metrics_key: SecretStr | None = None
    """A key that may read metrics and nothing else, as `Authorization: Bearer <key>`."""
    metrics_names: Annotated[int, Field(ge=1, le=1000)] = 100
    """Models, and tenants, that metrics tell apart; the rest is counted as `other`."""


class TraceSettings(FleetSettings):
    """Traces; where they go is said by OpenTelemetry's own variables."""

    otel_genai: GenAi = "latest"
    """Names of attributes about models in spans: OpenTelemetry's `latest`, its `1.36`, or `off`."""


class EndpointSettings(Protocol):
    """Where to serve, and to whom."""

    @property
    def metrics_address(self) -> str:
        """Address to listen on."""

    @property
    def metrics_port(self) -> int | None:
        """Port to listen on; 0 takes a free one, None serves nothing."""

    @property
    def metrics_key(self) -> SecretStr | None:
        """The key that a client must send; None: none."""


def demand_key(settings: EndpointSettings) -> None:
    """Check that only this machine can read without a key; raises InvalidSetting if not."""
    if settings.metrics_port is None or settings.metrics_key is not None:
        return
    if not _is_loopback(settings.metrics_address):
        raise InvalidSetting(
            f"FLEET_METRICS_ADDRESS = {settings.metrics_address}: set FLEET_METRICS_KEY, which "
            "clients on other machines then send, or use a loopback address"
        )


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
