"""Settings of a process's logs; read once, in its composition root."""

from typing import Literal

from contract.settings import FleetSettings


class LogSettings(FleetSettings):
    """How shims and workers write their logs."""

    log_format: Literal["human", "json"] = "human"
    """How shims and workers write a line of their logs: `human`, or `json` with a field a fact."""
