"""The fields that all responses share, and responses as JSON."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from pydantic_core import from_json
from starlette.responses import Response

from api_shim.openai.request_fields import tier_of
from contract.events import Frame
from contract.jobs import JobRecord
from contract.json_lines import json_line
from contract.requests import Priority


class ResponseHead(NamedTuple):
    """The job that a response belongs to."""

    job_id: str
    created: int
    """Unix seconds."""
    model: str
    priority: Priority
    is_alias: bool = False
    """Whether the client has named an alias, so that the job may move to another model."""

    @classmethod
    def of(cls, record: JobRecord) -> Self:
        """From a job's record."""
        model, is_alias = record.model or "", record.alias is not None
        return cls(record.id, int(record.created_at), model, record.priority, is_alias)

    def answered_by(self, started: Frame) -> Self:
        """The same for the model that an attempt runs."""
        return self._replace(model=from_json(started.body).get("model") or self.model)

    @property
    def tier(self) -> str:
        """The job's service tier."""
        return tier_of(self.priority)

    def fields(self, id: str, object: str) -> dict[str, Any]:
        """The first fields of a response and of each of its chunks."""
        return {
            "id": f"{id}-{self.job_id}",
            "object": object,
            "created": self.created,
            "model": self.model,
            "service_tier": self.tier,
            "system_fingerprint": None,
        }


def json_response(value: Any, headers: Mapping[str, str]) -> Response:
    """A response that is not streamed."""
    return encoded_response(json_line(value), headers)


def encoded_response(body: bytes, headers: Mapping[str, str]) -> Response:
    """The same of JSON."""
    return Response(body, 200, response_headers(headers), media_type="application/json")


def response_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of a response that is not streamed."""
    return {"Cache-Control": "no-store", **headers}
