"""How long the texts of a job are kept: what a request may ask for, and what holds for it.

Removal needs nobody to remember it. The script that writes a job's last event also drops the texts
of its record and lets its log expire (relay/lua/shared/retention.lua), so that no process that is
killed can leave any behind.
"""

import math

from contract.chat import ChatRequest
from contract.errors import InvalidRequest
from contract.jobs import AnyRequest, JobRecord, not_kept
from contract.requests import Retention
from contract.tenants import Tenant
from relay.settings import RelaySettings


def kept_s(asked: Retention | None, tenant: Tenant, settings: RelaySettings) -> int | None:
    """Seconds for which the texts of a new job are kept; 0: not at all; None: FLEET_LOG_TTL_S."""
    seconds = _seconds(asked or tenant.retention or settings.retention)
    return None if seconds >= settings.log_ttl_s else int(seconds)


def _seconds(retention: Retention) -> float:
    if retention == "none":
        return 0
    return math.inf if retention == "ttl" else retention


def check_retention(request: AnyRequest, tenant: Tenant, settings: RelaySettings) -> None:
    """Check what a request asks for; raises InvalidRequest."""
    asked, most = request.retention, tenant.retention or settings.retention
    if asked is not None and _seconds(asked) > _seconds(most):
        whose = "this key" if tenant.retention is not None else "FLEET_RETENTION"
        raise InvalidRequest(
            f"retention: {asked} is longer than {whose} allows ({most}): leave it out or ask for "
            "less",
            field="retention",
        )
    if isinstance(asked, int) and asked > settings.log_ttl_s:
        raise InvalidRequest(
            f"retention: it may be {settings.log_ttl_s:g} seconds at most (FLEET_LOG_TTL_S), not "
            f"{asked}",
            field="retention",
        )
    notes = request.response_notes if isinstance(request, ChatRequest) else None
    if notes is not None and notes.background and kept_s(asked, tenant, settings) == 0:
        raise InvalidRequest(
            "background: its response would be gone when it has ended, because the retention is "
            "none: stream it, or have it kept for some seconds (X-Fleet-Retention: 600)",
            field="background",
        )


def demand_kept(record: JobRecord, settings: RelaySettings, now: float) -> None:
    """Check that the events of a job can still be read at this time (unix seconds).

    Raises JobNotKept.
    """
    if record.retention_s != 0 or record.ended_at is None:
        return
    if now > record.ended_at + settings.retention_grace_s:
        raise not_kept(record.id)
