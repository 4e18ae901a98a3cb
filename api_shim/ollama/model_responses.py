"""POST /api/pull and /api/create: the requests, and progress as lines. Pure.

Source: ollama/ollama `server/images.go` (PullModel), `server/create.go`, `api/types.go`
(ProgressResponse): only the line `success` means success.
"""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field
from pydantic_core import from_json

from api_shim.http.problems import Problem
from api_shim.ollama.chat_response import NDJSON
from api_shim.ollama.errors import encoded
from api_shim.ollama.request_fields import NamedModel, build_request
from contract.errors import InvalidRequest
from contract.events import Frame
from contract.json_lines import json_line
from contract.models import CreateRequest, PullRequest
from contract.requests import Word

NO_BLOBS: Final = (
    "a fleet does not transfer files to its backends; create the model there (`ollama create` on "
    "that machine), or pull one and name it in `from`"
)
SUCCESS: Final = b'{"status":"success"}\n'


class PullBody(NamedModel):
    """A model to download."""

    insecure: bool | None = None
    stream: bool | None = None
    """The default is true."""


class CreateBody(NamedModel):
    """A model to create from another."""

    from_: Word | None = Field(default=None, alias="from")
    template: str | None = None
    license: str | tuple[str, ...] | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    quantize: Word | None = None
    files: dict[str, str] | None = None
    """Refused: they name blobs."""
    adapters: dict[str, str] | None = None
    """Refused: they name blobs."""
    stream: bool | None = None
    """The default is true."""


def to_pull(body: PullBody) -> PullRequest:
    """The request for a pull; raises InvalidRequest."""
    return build_request(
        PullRequest,
        backend=body.backend,
        model=body.model_name,
        insecure=body.insecure,
    )


def to_create(body: CreateBody) -> CreateRequest:
    """The request for a create; raises InvalidRequest."""
    for field in ("files", "adapters"):
        if getattr(body, field):
            raise InvalidRequest(f"{field}: {NO_BLOBS}")
    if not body.from_:
        raise InvalidRequest("from: required; it names the model to start from")
    license = body.license
    return build_request(
        CreateRequest,
        backend=body.backend,
        model=body.model_name,
        source=body.from_,
        system=body.system,
        template=body.template,
        parameters=body.parameters,
        license=(license,) if isinstance(license, str) else license,
        messages=body.messages,
        quantize=body.quantize,
    )


class ProgressLines:
    """Renders the progress of a pull or create; `success` is sent once."""

    media_type = NDJSON
    keep_alive = b'{"status":"waiting"}\n'

    def __init__(self, *, is_from_another: bool = False) -> None:
        """`is_from_another`: the model is created from one that a pull may provide."""
        self._is_from_another = is_from_another
        self._has_succeeded = False

    def render(self, frames: Sequence[Frame]) -> bytes:
        """The lines for these frames."""
        return b"".join([self._render_frame(frame) for frame in frames])

    def render_error(self, problem: Problem) -> bytes:
        """The last line of a job that failed."""
        return encoded(problem, can_pull=self._is_from_another) + b"\n"

    def _render_frame(self, frame: Frame) -> bytes:
        if frame.type == "done":
            return b"" if self._has_succeeded else SUCCESS
        if frame.type != "progress":
            return b""
        fields = from_json(frame.body)
        self._has_succeeded = fields["status"] == "success"
        progress = {name: fields.get(ours) for name, ours in _FIELDS.items()}
        return json_line({k: v for k, v in progress.items() if v is not None}) + b"\n"


_FIELDS: Final = {
    "status": "status",
    "digest": "digest",
    "total": "total_bytes",
    "completed": "completed_bytes",
}
