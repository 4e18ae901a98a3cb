"""Batches as a caller has them: a file of requests goes up, a file of answers comes down."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any, BinaryIO
from uuid import uuid4

from pydantic import ConfigDict
from pydantic_core import from_json

from contract.batches import ENDED, BatchStatus, Counts, LineError
from contract.errors import InvalidRequest
from contract.json_lines import json_line
from contract.wire import WireModel
from fleet.client.errors import FleetUnreachable
from fleet.client.transport import NO_ANSWER, Shims

_PAGE = 100


class LineErrors(WireModel):
    """What is wrong with an input file."""

    model_config = ConfigDict(extra="ignore")

    data: tuple[LineError, ...] = ()


class BatchView(WireModel):
    """A batch, as `/v1/batches` tells it; fields that a newer shim adds are let be."""

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

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.status in ENDED


class Batches:
    """Submits, looks at, cancels and fetches; raises the shim's error, or FleetUnreachable."""

    def __init__(self, shims: Shims) -> None:
        """Ask these shims."""
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
    ) -> BatchView:
        """Upload a file of requests, a JSON object a line, and begin its batch.

        All of them go to `backend`, if it is given.
        """
        answer = await self._shims.upload("/v1/files", {"purpose": "batch"}, name, file)
        wish: dict[str, Any] = {
            "input_file_id": from_json(answer)["id"],
            "endpoint": endpoint,
            "completion_window": completion_window,
            "metadata": metadata,
        }
        headers = {"idempotency-key": uuid4().hex}
        if backend is not None:
            headers["x-fleet-backend"] = backend
        return _view(
            await self._shims.ask("POST", "/v1/batches", body=json_line(wish), headers=headers)
        )

    async def look(self, batch_id: str) -> BatchView:
        """A batch as it is now."""
        return _view(await self._shims.ask("GET", f"/v1/batches/{batch_id}"))

    async def cancel(self, batch_id: str) -> BatchView:
        """End a batch soon; what is done by then stands in its output."""
        return _view(
            await self._shims.ask(
                "POST", f"/v1/batches/{batch_id}/cancel", headers={"idempotency-key": batch_id}
            )
        )

    async def newest(self, limit: int = _PAGE) -> tuple[BatchView, ...]:
        """The caller's batches, newest first."""
        answer = await self._shims.ask("GET", "/v1/batches", params={"limit": limit})
        return tuple(BatchView.model_validate(each) for each in from_json(answer)["data"])

    async def page(
        self, limit: int, after: str | None = None
    ) -> tuple[tuple[BatchView, ...], str | None]:
        """Up to a hundred of the caller's batches, newest first, behind the one named `after`.

        With the id behind which the next ones come, if there are some.
        """
        params = {"limit": limit} | ({"after": after} if after else {})
        answer = from_json(await self._shims.ask("GET", "/v1/batches", params=params))
        found = tuple(BatchView.model_validate(each) for each in answer["data"])
        return found, found[-1].id if found and answer.get("has_more") else None

    async def fetch(self, file_id: str, into: BinaryIO) -> AsyncGenerator[int, None]:
        """Write a file's bytes to `into`, which is at its beginning; yields how many came.

        A line that dies is taken up by another shim, from the beginning.
        """
        patience = self._shims.patience()
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
                    raise FleetUnreachable(f"{path} broke off: fetch it into a file") from trouble
                await self._shims.pause(patience, trouble)
                yield -size_bytes
                if size_bytes:
                    into.seek(0)
                    into.truncate()


def first_endpoint(file: Path) -> str:
    """The endpoint that a file's first request names; raises InvalidRequest, OSError."""
    with file.open("rb") as opened:
        line = next((line for line in opened if line.strip()), b"")
    try:
        url = from_json(line.removeprefix(b"\xef\xbb\xbf"))["url"]
    except (ValueError, KeyError, TypeError):
        url = None
    if not isinstance(url, str):
        raise InvalidRequest(
            f"the first line of {file} is no request: a line looks like "
            '{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {...}}'
        )
    return url


def _view(answer: bytes) -> BatchView:
    return BatchView.model_validate_json(answer)
