"""What a new job is made of: its record and first event, its place in the order.

Nothing is asked or changed.
"""

import asyncio
from functools import partial
from typing import Final

from contract import redis_keys
from contract.aliases.parameters import applied
from contract.chat import ChatRequest, CountRequest
from contract.conversations import turn_of
from contract.cost import Cost, cost_of
from contract.errors import InvalidRequest
from contract.events import Queued
from contract.images import ImageRequest, inline_bytes
from contract.jobs import AnyRequest, JobRecord
from contract.models import CreateRequest
from contract.tenants import DEFAULT_TENANT, Tenant
from contract.wire import VERSION, encode, encode_large, infinite_field
from relay.admission.retention import kept_s
from relay.connection import Argument
from relay.multiplexer import LargeWord, word
from relay.order import Arrival, Bounds, arrival
from relay.records import to_hash
from relay.scheduling import later
from relay.scripts.jobs import NO_FOLLOWER, FirstFollower, NewJob
from relay.settings import RelaySettings
from relay.webhooks.notices import family_of
from telemetry.trace_context import current_trace

FIRST_FOLLOW_S: Final = 15.0
"""Seconds that the first follower has at least: a short lease cancels no job of a slow client."""
_LARGE_TOKENS: Final = 2**16
"""Requests that are estimated at fewer hold no large text."""
_LARGE_IMAGES: Final = 2**18
"""The same in characters of images, and of texts that are not estimated."""


def check_images(request: AnyRequest, settings: RelaySettings) -> None:
    """Check how many images the messages have, and how large they are; raises InvalidRequest."""
    if not isinstance(request, ChatRequest):
        return
    images = [image for message in request.messages for image in message.images]
    if len(images) > settings.max_images:
        raise InvalidRequest(
            f"messages: they have {len(images)} images, and may have {settings.max_images} "
            "(FLEET_MAX_IMAGES): send fewer, or several requests",
            field="messages",
        )
    size_bytes = sum(map(inline_bytes, images))
    if size_bytes > settings.max_images_bytes:
        raise InvalidRequest(
            f"messages: their images have {size_bytes} bytes, and may have "
            f"{settings.max_images_bytes} (FLEET_MAX_IMAGES_BYTES): send fewer or smaller ones",
            field="messages",
        )


def new_record(
    request: AnyRequest, queue: str, tenant: Tenant, job_id: str, *,
    retry_of: str | None = None, settings: RelaySettings, is_told: bool,
) -> JobRecord:  # fmt: skip
    """The record of a new job; `settings` are for what it leaves open, `is_told` for webhooks."""
    trace, route = current_trace(), request.route
    turn = turn_of(request, tenant.name, settings.conversation_policy)
    return JobRecord(
        id=job_id,
        v=VERSION,
        kind=request.kind,
        status="queued",
        queue=queue,
        backend=redis_keys.backend_of(queue),
        model=getattr(request, "model", None) if route is None else route.targets[0].model,
        alias=None if route is None else route.alias,
        tenant=tenant.name,
        priority=request.priority,
        attempt=1,
        max_attempts=request.max_attempts,
        created_at=0.0,
        on_disconnect=request.on_disconnect,
        busy_wait_s=request.busy_wait_s,
        retention_s=kept_s(request.retention, tenant, settings),
        retry_of=retry_of,
        not_before=request.not_before,
        after=_once(request.after),
        after_any=_once(request.after_any),
        blocked=bool(request.after or request.after_any),
        webhook=family_of(request, is_told=is_told),
        callback_url=request.callback_url,
        **({} if trace is None else trace._asdict()),
        conversation=getattr(request, "conversation", None),
        conversation_policy=turn and turn.policy,
        metadata=request.metadata,
    )


def _once(ids: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids or ()))


def invalid_job(record: JobRecord) -> NewJob:
    """What the scripts write of a job whose message is no valid request."""
    fields: dict[str, Argument] = {**to_hash(record, b"{}"), "facts": "{}"}
    return NewJob(record, fields, Queued(queue=record.queue), None, NO_FOLLOWER)


async def new_job(
    record: JobRecord,
    request: AnyRequest,
    tenant: Tenant,
    settings: RelaySettings,
    follower: FirstFollower = NO_FOLLOWER,
    *,
    obstacle: str = "",
    is_needed: bool = False,
    now: float,
) -> tuple[NewJob, Arrival]:
    """What the scripts write of a job, and its place in the order; `now` is in unix seconds.

    `is_needed`: it is not removed before its time, however full Redis is. The JSON of a large
    request takes a tenth of a second, and is made in a thread.
    """
    cost = cost_of(applied(request))
    make = partial(
        _new_job, record, request, tenant, settings, follower, obstacle=obstacle,
        is_needed=is_needed, now=now, cost=cost,
    )  # fmt: skip
    return await asyncio.to_thread(make) if may_be_large(request, cost) else make()


def may_be_large(request: AnyRequest, cost: Cost) -> bool:
    """Whether the request may hold a large text or image."""
    match request:
        case ChatRequest():
            images = (image for message in request.messages for image in message.images)
            return cost.tokens >= _LARGE_TOKENS or sum(map(len, images)) >= _LARGE_IMAGES
        case CountRequest():
            sizes = (
                len(message.text) + sum(map(len, message.images)) for message in request.messages
            )
            return sum(sizes) >= _LARGE_IMAGES
        case ImageRequest():
            sizes = (len(each or "") for each in (request.prompt, request.image, request.mask))
            return sum(sizes) >= _LARGE_IMAGES
        case CreateRequest():
            return True
        case _:
            return cost.tokens >= _LARGE_TOKENS


def _new_job(
    record: JobRecord,
    request: AnyRequest,
    tenant: Tenant,
    settings: RelaySettings,
    follower: FirstFollower,
    *,
    obstacle: str,
    is_needed: bool,
    now: float,
    cost: Cost,
) -> tuple[NewJob, Arrival]:
    asked = later.stored(request)
    if asked.busy_wait_s is not None or asked.retention is not None:
        # The record has them, so that workers of the version before can read the request.
        asked = asked.model_copy(update={"busy_wait_s": None, "retention": None})
    body = _encoded(asked, cost)
    fields: dict[str, Argument] = to_hash(record, body)
    metadata = fields.get("metadata")
    size_bytes = body.size_bytes if isinstance(body, LargeWord) else len(body)
    size_bytes += len(metadata) if isinstance(metadata, str) else 0
    arriving = _arrival(record, request, tenant, settings, cost=cost, size_bytes=size_bytes)
    # With the facts, so that a worker that cannot read the request can still give the job back.
    fields["facts"] = arriving.facts
    if is_needed:
        fields["needed"] = "1"
    queued = Queued(queue=record.queue, reason=later.reason(record, now) or obstacle)
    return NewJob(record, fields, queued, later.deadline_s(request, now), follower), arriving


def _encoded(request: AnyRequest, cost: Cost) -> bytes | LargeWord:
    """The JSON of a request; raises InvalidRequest for a number that JSON has no word for."""
    pieces = encode_large(request) if may_be_large(request, cost) else [encode(request)]
    if (field := infinite_field(request, pieces)) is not None:
        raise InvalidRequest(f"{field}: a number is out of range: send a smaller one", field=field)
    return word(pieces if len(pieces) > 1 else pieces[0])


def _arrival(
    record: JobRecord,
    request: AnyRequest,
    tenant: Tenant,
    settings: RelaySettings,
    *,
    cost: Cost,
    size_bytes: int,
) -> Arrival:
    """The job with the bounds that it is checked against."""
    bounds = Bounds(
        settings.queue_limit,
        settings.queue_limit_tokens,
        settings.queue_limit_bytes,
        tenant.limit_jobs or settings.tenant_limit,
        tenant.limit_tokens or settings.tenant_limit_tokens,
        tenant.limit_bytes or settings.tenant_limit_bytes,
        # Without keys there is nobody to leave room for.
        1.0 if tenant.name == DEFAULT_TENANT.name else settings.tenant_share,
    )
    turn, due = turn_of(request, tenant.name, settings.conversation_policy), later.due_of(record)
    return arrival(
        record, request, tenant, bounds, cost=cost, size_bytes=size_bytes, turn=turn, due=due
    )


def first_of(record: JobRecord, process: str | None, lease_s: float | None) -> FirstFollower:
    """What ends a job that lives for its followers and whose client leaves before it is one.

    The client, or its shim, may die between enqueue and first follow (docs/adr/0012). A `process`
    that follows from the start is registered at once, for `lease_s` seconds; None: no client is
    expected to follow.
    """
    if record.on_disconnect == "continue" or lease_s is None:
        return NO_FOLLOWER
    if process is not None:
        return FirstFollower(process, lease_s)
    policy = record.on_disconnect
    patience_s = 0.0 if isinstance(policy, str) else policy.cancel_after_s
    return FirstFollower("expected", max(FIRST_FOLLOW_S, lease_s, patience_s))
