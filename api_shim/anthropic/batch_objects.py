"""Message batches as Anthropic has them, rendered from a batch's record and its lines. Pure.

A message batch is a batch of the endpoint /v1/messages: the same record, jobs, files and limits.
Source: anthropics/anthropic-sdk-python, MessageBatch and MessageBatchIndividualResponse.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from api_shim.anthropic.errors import error_body
from api_shim.anthropic.message_body import invalid_field
from api_shim.http.problems import Problem
from api_shim.submission.ignored_fields import HEADER
from contract.batches import ENDED, Batch
from contract.json_lines import json_line, one_line
from contract.wire import json_pieces

ENDPOINT: Final = "/v1/messages"
BATCH_PREFIX: Final = "msgbatch_"
"""Begins the id of a message batch; the rest is that of the batch's own."""
REQUESTS: Final = "requests"
"""Key of a batch's metadata with its number of requests, known before its lines are checked."""
_OURS: Final = "batch_"
_CUSTOM_ID: Final = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_FIELDS: Final = frozenset({"custom_id", "params"})
_IGNORED: Final = "x_fleet_ignored"
"""Field of a result, an addition of ours, with the header of the same name."""
_NOT_RUN: Final[Mapping[str, str]] = {"batch_cancelled": "canceled", "batch_expired": "expired"}
"""Results of requests that did not run to their end, by the code in their line."""


class NotRun(NamedTuple):
    """How many requests of a batch did not run to their end."""

    canceled: int = 0
    expired: int = 0


def own_id(message_batch_id: str) -> str:
    """The batch's own id; "" if this is none of a message batch."""
    digits = message_batch_id.removeprefix(BATCH_PREFIX)
    return _OURS + digits if digits != message_batch_id else ""


def message_batch_id(batch_id: str) -> str:
    """The id of a message batch as its client knows it, by the batch's own."""
    return BATCH_PREFIX + batch_id.removeprefix(_OURS)


def batch_object(batch: Batch, base_url: str, not_run: NotRun) -> dict[str, Any]:
    """A batch as JSON; `base_url` is the shim's address as the client knows it."""
    id = message_batch_id(batch.id)
    has_ended = batch.status in ENDED
    ended_at = batch.completed_at or batch.expired_at or batch.cancelled_at or batch.failed_at
    is_canceling = batch.status == "cancelling"
    return {
        "id": id,
        "type": "message_batch",
        "processing_status": "ended"
        if has_ended
        else "canceling"
        if is_canceling
        else "in_progress",
        "request_counts": _counts(batch, not_run, has_ended=has_ended),
        "created_at": _time(batch.created_at),
        "expires_at": _time(batch.expires_at),
        "ended_at": _time(ended_at) if has_ended else None,
        "cancel_initiated_at": _time(batch.cancelling_at),
        "archived_at": None,
        "results_url": f"{base_url}{ENDPOINT}/batches/{id}/results" if has_ended else None,
    }


def _counts(batch: Batch, not_run: NotRun, *, has_ended: bool) -> dict[str, int]:
    """Numbers of requests; all are `processing` until the batch has ended, as at Anthropic."""
    total = batch.counts.total or int(batch.metadata.get(REQUESTS) or 0)
    if not has_ended:
        return {"processing": total, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    succeeded = batch.counts.completed
    return {
        "processing": 0,
        "succeeded": succeeded,
        "errored": max(0, total - succeeded - sum(not_run)),
        "canceled": not_run.canceled,
        "expired": not_run.expired,
    }


def _time(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class InputLines(NamedTuple):
    """The input file of a batch."""

    data: bytes
    total: int
    """Number of its lines."""
    left_out: tuple[str, ...]
    """Names of unknown fields beside the requests, for X-Fleet-Ignored."""


def to_lines(body: Any, most: int) -> InputLines:
    """The input file of a request to create a batch; raises Refusal.

    CPU-bound, so call it in a thread.
    """
    requests = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(requests, list) or not requests:
        raise invalid_field("requests", "required: a list of at least one request")
    if len(requests) > most:
        raise invalid_field(
            "requests",
            f"a batch may have at most {most} requests, not {len(requests)}: split it, or raise "
            "FLEET_BATCH_MAX_ROWS",
        )
    seen: set[str] = set()
    left_out = dict.fromkeys(name for name in body if name != "requests")
    lines: list[bytes] = []
    for at, request in enumerate(requests):
        custom_id, params = _request(f"requests.{at}", request)
        if custom_id in seen:
            raise invalid_field(
                f"requests.{at}.custom_id", f"{custom_id} is in an earlier request, too"
            )
        seen.add(custom_id)
        left_out |= dict.fromkeys(f"requests[].{name}" for name in request if name not in _FIELDS)
        row = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": params}
        lines += [*map(one_line, json_pieces(row)), b"\n"]
        requests[at] = None
        del request, params, row  # of a large one there is no second
    return InputLines(b"".join(lines), len(requests), tuple(left_out))


def _request(field: str, request: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(request, dict):
        raise invalid_field(field, "must be an object")
    custom_id, params = request.get("custom_id"), request.get("params")
    if not isinstance(custom_id, str) or not _CUSTOM_ID.match(custom_id):
        raise invalid_field(
            f"{field}.custom_id", "must be 1 to 64 letters, digits, hyphens and underscores"
        )
    if not isinstance(params, dict):
        raise invalid_field(f"{field}.params", "must be an object: the body of a message request")
    return custom_id, params


def result_line(line: bytes) -> bytes:
    """A line of an output or error file as a line of results."""
    row = from_json(line)
    return json_line({"custom_id": row["custom_id"], "result": _result(row)}) + b"\n"


def _result(row: Mapping[str, Any]) -> dict[str, Any]:
    response = row["response"]
    if response is None:
        return {"type": _NOT_RUN.get(row["error"]["code"], "canceled")}
    if response["status_code"] == 200:  # noqa: PLR2004 - what parts.succeeded writes
        named = response.get("headers", {}).get(HEADER)
        extra = {_IGNORED: named} if named else {}
        return {"type": "succeeded", "message": response["body"], **extra}
    error = response["body"]["error"]
    problem = Problem(
        type="",
        title="",
        status=response["status_code"],
        detail=error["message"],
        code=error["code"] or "",
        request_id=response["request_id"],
    )
    return {"type": "errored", "error": error_body(problem)}


def not_run_in(lines: bytes) -> NotRun:
    """How many of these lines of an error file are of requests that did not run to their end."""
    found = {kind: lines.count(b'"error":{"code":"%s"' % code.encode())
             for code, kind in _NOT_RUN.items()}  # fmt: skip
    return NotRun(**found)
