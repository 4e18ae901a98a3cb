"""What every answer says of itself, and how an answer leaves. Pure but for the response."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from starlette.responses import Response

from api_shim.openai.request_fields import tier_of
from contract.jobs import JobRecord
from contract.json_lines import json_line
from contract.requests import Priority


class ResponseHead(NamedTuple):
    """Which job an answer is of."""

    job_id: str
    created: int
    """Unix seconds."""
    model: str
    priority: Priority

    @classmethod
    def of(cls, record: JobRecord) -> Self:
        """From a job's record."""
        return cls(record.id, int(record.created_at), record.model or "", record.priority)

    @property
    def tier(self) -> str:
        """The service tier that it had."""
        return tier_of(self.priority)

    def fields(self, id: str, object: str) -> dict[str, Any]:
        """The first fields of an answer and of each of its chunks."""
        return {
            "id": f"{id}-{self.job_id}",
            "object": object,
            "created": self.created,
            "model": self.model,
            "service_tier": self.tier,
            "system_fingerprint": None,
        }


def answered(value: Any, headers: Mapping[str, str]) -> Response:
    """A whole answer."""
    return Response(json_line(value), 200, heads(headers), media_type="application/json")


def heads(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of a whole answer."""
    return {"Cache-Control": "no-store", **headers}
