"""The audit trail of one shim: writes what was done with rights to change the fleet, and refusals.

An entry is written before its response begins, so that what was answered is in the log. If Redis
does not take it, the process's own log has it: the action is done and cannot be refused any more.
Reads are not recorded, nor requests that were invalid. A refusal is recorded once a minute for each
key and route, because any key can be refused without end.
"""

import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.types import Message, Scope, Send

from api_shim.access.route_permissions import NEEDS
from api_shim.http.authentication import tenant_in
from contract.errors import FleetError, RelayUnavailable
from contract.jobs import JobRecord
from contract.tenants import Tenant
from relay.access.audit_log import AuditLog
from relay.api_keys import ApiKeyEntry
from relay.records import Records

_log = logging.getLogger(__name__)

_RECORDED: Final = frozenset({"admin", "models:admin", "models:write", "webhooks"})
_OF_ADMINS: Final = frozenset(
    {
        "POST /api/v1/jobs/{id}/retry", "POST /api/v1/dead/redrive",
        "DELETE /api/v1/dead", "DELETE /api/v1/dead/{id}",
    }
)  # fmt: skip
"""Recorded only of admins, who reach every tenant's; what tenants do with their own is theirs."""
_READS: Final = ("GET ", "HEAD ")
_EVERY_S: Final = 60.0
_REMEMBERED: Final = 1000
_JOB: Final = b"x-fleet-job"
PULLS: Final = "on_missing: pull"
"""The action of a request whose model is pulled for it."""
NOTHING: Final = object()
"""In place of a subject: the call has changed nothing."""


class AuditTrail:
    """Writes entries of the audit log for the calls of this process."""

    def __init__(self, audit: AuditLog, records: Records) -> None:
        """Nothing was refused yet."""
        self.log = audit
        self._records = records
        self._recorded_at: dict[tuple[str, str], float] = {}
        """Monotonic times of recorded refusals and pulls, by key and what it was."""

    def watched(self, scope: Scope, row: str, send: Send) -> Send:
        """A `send` that writes an entry before the response, if the row is one to record."""
        is_admins = row in _OF_ADMINS and tenant_in(scope).admin
        if NEEDS[row] not in _RECORDED and not is_admins:
            return send

        async def recording(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._record(scope, row, message)
            await send(message)

        return recording

    async def refused(self, scope: Scope, row: str) -> None:
        """Write that a key lacks the permission of a row."""
        if NEEDS[row] in _RECORDED:
            await self._append(scope, row, HTTPStatus.FORBIDDEN, "")

    async def _record(self, scope: Scope, row: str, start: Message) -> None:
        status: int = start["status"]
        is_done = status < HTTPStatus.BAD_REQUEST or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        is_read = row.startswith(_READS) or scope["state"].get("audit_subject") is NOTHING
        if status == HTTPStatus.FORBIDDEN or (is_done and not is_read):
            job = next((id.decode() for name, id in start.get("headers", ()) if name == _JOB), None)
            subject = await self._subject(scope, job) if is_done else ""
            await self._append(scope, row, status, subject)

    async def _subject(self, scope: Scope, job_id: str | None) -> str:
        """What the call was about: as its route said, or by its job, or by its path."""
        noted: str | None = scope["state"].get("audit_subject")
        if noted is not None:
            return noted
        if job_id is not None:
            try:
                record = await self._records.get(job_id)
            except FleetError:
                return f"job {job_id}"
            return f"{record.model or ''} on {record.backend}, job {job_id}".strip()
        return ", ".join(map(str, scope.get("path_params", {}).values()))

    async def _append(self, scope: Scope, row: str, status: int, subject: str) -> None:
        is_refused = status == HTTPStatus.FORBIDDEN
        entry: ApiKeyEntry | None = scope["state"]["key"]
        if is_refused and not self._is_news(entry.facts.id if entry else "", row):
            return
        fields: dict[str, str | int] = {
            "key": entry.facts.id if entry else "",
            "key_name": entry.facts.name if entry else "",
            "action": row,
            "subject": subject,
            "status": int(status),
            "address": (scope.get("client") or ("",))[0],
            "request_id": scope["state"].get("request_id", ""),
        }
        await self._write(tenant_in(scope), fields, refused=is_refused)

    async def pulls(self, tenant: Tenant, record: JobRecord) -> None:
        """Write that a job will pull its model, which its backend does not have.

        Once a minute for each key and model: until the model is there, every request says it.
        """
        subject = f"{record.model or ''} on {record.backend}"
        if self._is_news(tenant.key_id, f"{PULLS} {subject}"):
            fields: dict[str, str | int] = {
                "key": tenant.key_id,
                "action": PULLS,
                "subject": f"{subject}, job {record.id}",
                "status": int(HTTPStatus.ACCEPTED),
            }
            await self._write(tenant, fields, refused=False)

    async def _write(
        self, tenant: Tenant, fields: Mapping[str, str | int], *, refused: bool
    ) -> None:
        try:
            await self.log.append(tenant, fields, refused=refused)
        except RelayUnavailable:
            facts = {"tenant": tenant.name, **fields}
            _log.warning("not in the audit log", extra={"facts": facts})

    def _is_news(self, key_id: str, what: str) -> bool:
        now = time.monotonic()
        which = (key_id, what)
        if now - self._recorded_at.get(which, float("-inf")) < _EVERY_S:
            return False
        if len(self._recorded_at) >= _REMEMBERED:
            self._recorded_at.clear()
        self._recorded_at[which] = now
        return True


def note_subject(scope: Scope, subject: Any) -> None:
    """Say what a call does its action to, for the audit log; no secret."""
    scope["state"]["audit_subject"] = str(subject)


def note_nothing(scope: Scope) -> None:
    """Say that a call changes nothing, so that it is not recorded."""
    scope["state"]["audit_subject"] = NOTHING
