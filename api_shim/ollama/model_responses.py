"""POST /api/pull and /api/create: jobs that tell how far they have come, line by line. Pure.

Source: ollama/ollama `server/images.go` (PullModel), `server/create.go`, `api/types.go`
(ProgressResponse): the line `success`, and nothing else, says that it went well.
"""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field
from pydantic_core import from_json

from api_shim.http.problems import Problem
from api_shim.ollama.chat_response import NDJSON
from api_shim.ollama.errors import encoded
from api_shim.ollama.request_fields import NamedModel, requested
from contract.errors import InvalidRequest
from contract.events import Frame
from contract.json_lines import json_line
from contract.models import CreateRequest, PullRequest

NO_BLOBS: Final = (
    "a fleet does not carry files to its backends; make the model there (`ollama create` on that "
    "machine), or pull one and name it in `from`"
)
SUCCESS: Final = b'{"status":"success"}\n'


class PullBody(NamedModel):
    """A model to download."""

    insecure: bool | None = None
    stream: bool | None = None
    """Absent means true."""


class CreateBody(NamedModel):
    """A model to make from another."""

    from_: str | None = Field(default=None, alias="from")
    template: str | None = None
    license: str | tuple[str, ...] | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    quantize: str | None = None
    files: dict[str, str] | None = None
    """Refused: they name blobs."""
    adapters: dict[str, str] | None = None
    """Refused: they name blobs."""
    stream: bool | None = None
    """Absent means true."""


def to_pull(body: PullBody) -> PullRequest:
    """The job that a pull is; raises InvalidRequest."""
    return requested(
        PullRequest,
        backend=body.backend,
        model=body.wanted,
        insecure=body.insecure,
    )


def to_create(body: CreateBody) -> CreateRequest:
    """The job that a create is; raises InvalidRequest."""
    for field in ("files", "adapters"):
        if getattr(body, field):
            raise InvalidRequest(f"{field}: {NO_BLOBS}")
    if not body.from_:
        raise InvalidRequest("from: required; it names the model to start from")
    license = body.license
    return requested(
        CreateRequest,
        backend=body.backend,
        model=body.wanted,
        source=body.from_,
        system=body.system,
        template=body.template,
        parameters=body.parameters,
        license=(license,) if isinstance(license, str) else license,
        messages=body.messages,
        quantize=body.quantize,
    )


class Steps:
    """A pull or a create as it comes; what one status says is said once."""

    media_type = NDJSON
    keep_alive = b'{"status":"waiting"}\n'

    def __init__(self, *, is_from_another: bool = False) -> None:
        """Nothing told yet; `is_from_another`: it is made of a model, which a pull may bring."""
        self._is_from_another = is_from_another
        self._has_succeeded = False

    def tell(self, frames: Sequence[Frame]) -> bytes:
        """The lines for these frames."""
        return b"".join([self._told(frame) for frame in frames])

    def fail(self, problem: Problem) -> bytes:
        """The last line of a job that failed."""
        return encoded(problem, can_pull=self._is_from_another) + b"\n"

    def _told(self, frame: Frame) -> bytes:
        if frame.type == "done":
            return b"" if self._has_succeeded else SUCCESS
        if frame.type != "progress":
            return b""
        fields = from_json(frame.body)
        self._has_succeeded = fields["status"] == "success"
        said = {name: fields.get(ours) for name, ours in _FIELDS.items()}
        return json_line({k: v for k, v in said.items() if v is not None}) + b"\n"


_FIELDS: Final = {
    "status": "status",
    "digest": "digest",
    "total": "total_bytes",
    "completed": "completed_bytes",
}
