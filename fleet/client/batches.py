"""Batches: upload a file of requests, download a file of results."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO
from uuid import uuid4

from pydantic import ConfigDict
from pydantic_core import from_json

from contract.batches import ENDED, BatchStatus, Counts, LineError
from contract.errors import FleetError, InvalidRequest, RequestError
from contract.json_lines import json_line
from contract.wire import WireModel
from fleet.client.answers import answer_of, fields_of, listed
from fleet.client.errors import FleetUnreachable, NotAuthorised
from fleet.client.transport import NO_ANSWER, Shims

_PAGE = 100


class LineErrors(WireModel):
    """Errors in an input file, by line."""

    model_config = ConfigDict(extra="ignore")

    data: tuple[LineError, ...] = ()


class _StoredFile(WireModel):
    id: str


class BatchView(WireModel):
    """A batch as `/v1/batches` returns it; unknown fields are ignored. Times are unix seconds."""

    model_config = ConfigDict(extra="ignore")

    id: str
    status: BatchStatus
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: Counts = Counts()
    errors: LineErrors | None = None
    metadata: dict[str, str] | None = None
    not_before: int | None = None
    """When its first request may start, if that was asked for."""

    @property
    def is_scheduled(self) -> bool:
        """Whether its file is valid, and it waits for its time."""
        is_checked = self.status == "validating" and self.request_counts.total > 0
        return is_checked and self.not_before is not None

    @property
    def has_ended(self) -> bool:
        """Whether the batch is in a final state."""
        return self.status in ENDED


class AsyncBatches:
    """Submits, reads, cancels and downloads batches.

    Every method raises the FleetError that the shim responds with, or FleetUnreachable.
    """

    def __init__(self, shims: Shims) -> None:
        """Send requests to these shims."""
        self._shims = shims

    async def submit(
        self,
        file: IO[bytes],
        *,
        endpoint: str,
        name: str = "batch.jsonl",
        completion_window: str = "24h",
        metadata: dict[str, str] | None = None,
        backend: str | None = None,
        not_before: float | None = None,
    ) -> BatchView:
        """Upload a file of requests (JSON lines) and start its batch.

        `backend` is the backend of all requests; None: chosen for each. They start at `not_before`
        (unix seconds, at most 30 days ahead), and the completion window begins then. Where the
        batch is refused, the file is deleted again. Raises RequestError.
        """
        answer = await self._shims.upload("/v1/files", {"purpose": "batch"}, name, file)
        file_id = answer_of(_StoredFile, answer).id
        body: dict[str, Any] = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": completion_window,
            "metadata": metadata,
        }
        headers = {"idempotency-key": uuid4().hex}
        if backend is not None:
            headers["x-fleet-backend"] = backend
        if not_before is not None:
            headers["x-fleet-not-before"] = f"{not_before:.3f}"
        try:
            made = await self._shims.request(
                "POST", "/v1/batches", body=json_line(body), headers=headers
            )
        except (NotAuthorised, RequestError):
            with suppress(FleetError):
                await self._shims.request("DELETE", f"/v1/files/{file_id}")
            raise
        return _view(made)

    async def look(self, batch_id: str) -> BatchView:
        """The current state of a batch."""
        return _view(await self._shims.request("GET", f"/v1/batches/{batch_id}"))

    async def cancel(self, batch_id: str) -> BatchView:
        """Cancel a batch; requests that are done by then are in its output."""
        return _view(
            await self._shims.request(
                "POST", f"/v1/batches/{batch_id}/cancel", headers={"idempotency-key": batch_id}
            )
        )

    async def newest(self, limit: int = _PAGE) -> tuple[BatchView, ...]:
        """The caller's batches, newest first."""
        answer = await self._shims.request("GET", "/v1/batches", params={"limit": limit})
        return listed(BatchView, "data", answer)

    async def page(
        self, limit: int, after: str | None = None
    ) -> tuple[tuple[BatchView, ...], str | None]:
        """Up to `limit` (at most 100) batches behind the id `after`, newest first, and the next id.

        That id is the `after` of the next page, None at the end.
        """
        params = {"limit": limit} | ({"after": after} if after else {})
        answer = await self._shims.request("GET", "/v1/batches", params=params)
        found = listed(BatchView, "data", answer)
        return found, found[-1].id if found and fields_of(answer).get("has_more") else None

    async def fetch(self, file_id: str, into: BinaryIO) -> AsyncGenerator[int, None]:
        """Download a file to `into`, from position 0; yields the bytes of each piece.

        After a lost connection it starts again at another shim, and yields the negative number of
        bytes that are dropped. Raises FleetUnreachable, also if `into` cannot seek then.
        """
        retries = self._shims.retry_timer()
        path = f"/v1/files/{file_id}/content"
        is_over = False
        while not is_over:
            size_bytes = 0
            try:
                async with self._shims.stream(path, {}, "*/*") as pieces, aclosing(pieces):
                    async for piece in pieces:
                        into.write(piece)
                        size_bytes += len(piece)
                        yield len(piece)
                is_over = True
            except NO_ANSWER as trouble:
                if size_bytes and not into.seekable():
                    raise FleetUnreachable(f"{path} was interrupted: write to a file") from trouble
                await self._shims.pause(retries, trouble)
                yield -size_bytes
                if size_bytes:
                    into.seek(0)
                    into.truncate()


def first_endpoint(file: Path) -> str:
    """The `url` of the first request in a file; raises InvalidRequest, OSError."""
    with file.open("rb") as opened:
        line = next((line for line in opened if line.strip()), b"")
    try:
        url = from_json(line.removeprefix(b"\xef\xbb\xbf"))["url"]
    except (ValueError, KeyError, TypeError):
        url = None
    if not isinstance(url, str):
        raise InvalidRequest(
            f"the first line of {file} is not a request: a line looks like "
            '{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {...}}'
        )
    return url


def _view(answer: bytes) -> BatchView:
    return answer_of(BatchView, answer)
