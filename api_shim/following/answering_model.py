"""Which model of which backend answers a job whose model is an alias: its attempts say it.

A job moves to another target before it has output, so what the last `started` event says when the
head of a response is sent is true for all of it, unless the head was sent while the job waited.
"""

from collections.abc import Sequence

from api_shim.submission.submission import speaker
from contract.events import Frame
from contract.jobs import JobRecord


class AnsweringModel:
    """The model and backend of one job."""

    def __init__(self, record: JobRecord, headers: dict[str, str]) -> None:
        """`headers` of the response are kept up to date."""
        self._record = record
        self._headers = headers

    def hear(self, frames: Sequence[Frame]) -> None:
        """Look at the next events of the job."""
        for frame in frames:
            if frame.type == "started":
                fields = frame.fields
                its = {name: fields.get(name) for name in ("model", "backend")}
                self._record = self._record.model_copy(update=its)
                self._headers.update(self.headers)

    @property
    def record(self) -> JobRecord:
        """The job's record, with the model and the backend that run it."""
        return self._record

    @property
    def headers(self) -> dict[str, str]:
        """Headers that tell which they are."""
        return speaker(self._record.model, self._record.backend)
