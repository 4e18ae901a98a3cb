"""Webhooks over HTTP: each tenant manages its own; those of others do not exist for it.

A secret is in the response that makes it, and nowhere else.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, Path, Query, Response
from starlette.requests import HTTPConnection

from api_shim.access.audit_trail import note_subject
from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Caller
from api_shim.http.json_body import JsonRoute
from api_shim.http.problems import documented
from api_shim.native.jobs import json_response
from api_shim.submission.receiver_address import check_address
from contract.errors import InvalidRequest, UnknownWebhook
from contract.webhooks.webhook_models import (
    CALLBACKS,
    MOST_DELIVERIES,
    Delivery,
    DeliveryPage,
    DeliveryState,
    IssuedWebhook,
    NewWebhook,
    Replayed,
    RotateSecret,
    Webhook,
    WebhookChange,
    WebhookList,
    WebhookReplay,
    WebhookView,
)
from relay.webhooks.receivers import Receiver, StoredDelivery

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"], route_class=JsonRoute)

WebhookId = Annotated[
    str, Path(description="`wh_` and 24 hexadecimal digits, or `callbacks`.", max_length=64)
]
_EXAMPLES: Final[Any] = {
    "jobs": {"summary": "All ends of jobs", "value": {"url": "https://example.com/hooks"}},
    "openai": {
        "summary": "As OpenAI's clients expect them",
        "value": {
            "url": "https://example.com/hooks",
            "events": ["response.*", "batch.*"],
            "name": "notebook",
        },
    },
}
_RETURNED: Final[Any] = {"description": "`secret` is shown this once."}


@router.post(
    "",
    operation_id="create_webhook",
    status_code=201,
    response_model=IssuedWebhook,
    responses={201: _RETURNED, **documented(400, 413, 415, 422, 503)},
)
async def create(
    new: Annotated[NewWebhook, Body(openapi_examples=_EXAMPLES)],
    connection: HTTPConnection,
    dependencies: Injected,
    caller: Caller,
) -> Response:
    """Register an address for the ends of the caller's jobs and batches.

    Other shims know it within two seconds; jobs that are enqueued later are announced there.
    """
    _judge(new.url, dependencies)
    webhook, secret = await dependencies.webhooks.create(caller.name, new)
    note_subject(connection.scope, webhook.id)
    return _issued(IssuedWebhook(**webhook.model_dump(), secret=secret), 201)


@router.get("", operation_id="list_webhooks", response_model=WebhookList, responses=documented(503))
async def list_webhooks(dependencies: Injected, caller: Caller) -> Response:
    """List the caller's webhooks, and how their deliveries go; never their secrets."""
    await dependencies.webhooks.refresh()
    found = dependencies.webhooks.of(caller.name).values()
    views = [await _view(webhook, dependencies) for webhook in found]
    return json_response(WebhookList(webhooks=tuple(views)))


@router.get(
    "/{id}",
    operation_id="get_webhook",
    response_model=WebhookView,
    responses=documented(404, 503),
)
async def get(id: WebhookId, dependencies: Injected, caller: Caller) -> Response:
    """Get one webhook."""
    webhook = await dependencies.webhooks.get(caller.name, id)
    return json_response(await _view(webhook, dependencies))


@router.patch(
    "/{id}",
    operation_id="change_webhook",
    response_model=WebhookView,
    responses=documented(400, 404, 413, 415, 422, 503),
)
async def change(
    id: WebhookId, wanted: WebhookChange, dependencies: Injected, caller: Caller
) -> Response:
    """Change a webhook's address, events or name; disable it, or enable it again.

    What waits for a webhook with a new address, or that is enabled, is tried at once.
    """
    if id == CALLBACKS:
        raise InvalidRequest("callbacks: requests name their addresses; there is nothing to change")
    if wanted.url is not None:
        _judge(wanted.url, dependencies)
    fields = wanted.model_dump(exclude_none=True, exclude={"enabled"})
    if wanted.enabled is not None:
        fields |= {"disabled_at": None, "disabled_reason": ""}
    if wanted.enabled is False:
        at = dependencies.deliveries.now
        fields |= {"disabled_at": at, "disabled_reason": "its owner has disabled it"}
    webhook = await dependencies.webhooks.change(
        caller.name, id, lambda known: known.model_copy(update=fields)
    )
    if wanted.enabled is False:
        await dependencies.deliveries.clear(
            _receiver(webhook), "its owner has disabled the webhook"
        )
    elif (wanted.enabled or wanted.url) and await dependencies.deliveries.hasten(
        _receiver(webhook)
    ):
        await dependencies.deliveries.announce()
    return json_response(await _view(webhook, dependencies))


@router.delete(
    "/{id}",
    operation_id="remove_webhook",
    status_code=204,
    response_class=Response,
    responses=documented(404, 503),
)
async def remove(id: WebhookId, dependencies: Injected, caller: Caller) -> Response:
    """Remove a webhook with its secret, what waits for it, and its list of deliveries."""
    webhook = await dependencies.webhooks.get(caller.name, id)
    await dependencies.webhooks.remove(webhook)
    await dependencies.deliveries.clear(_receiver(webhook), "the webhook was removed")
    await dependencies.deliveries.forget(_receiver(webhook))
    return Response(status_code=204)


@router.post(
    "/{id}/rotate",
    operation_id="rotate_webhook_secret",
    response_model=IssuedWebhook,
    responses={200: _RETURNED, **documented(400, 404, 413, 415, 422, 503)},
)
async def rotate(
    id: WebhookId,
    dependencies: Injected,
    caller: Caller,
    wanted: RotateSecret | None = None,
) -> Response:
    """Replace a secret; for `overlap_s` deliveries are signed with both.

    `callbacks` has the secret for addresses that single requests name; this makes the first one.
    """
    await dependencies.webhooks.refresh()
    overlap_s = (wanted or RotateSecret()).overlap_s
    if id == CALLBACKS and CALLBACKS not in dependencies.webhooks.of(caller.name):
        webhook, secret = await dependencies.webhooks.create_callbacks(caller.name, overlap_s)
    else:
        webhook = await dependencies.webhooks.get(caller.name, id)
        secret = await dependencies.webhooks.rotate(webhook, overlap_s)
    return _issued(IssuedWebhook(**webhook.model_dump(), secret=secret), 200)


@router.get(
    "/{id}/deliveries",
    operation_id="list_webhook_deliveries",
    response_model=DeliveryPage,
    responses=documented(404, 422, 503),
)
async def deliveries(
    id: WebhookId,
    dependencies: Injected,
    caller: Caller,
    *,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_DELIVERIES)] = 100,
) -> Response:
    """List deliveries, the newest first: those that wait, and the last 1,000 that have ended.

    What waits for `callbacks` waits at many addresses, and is listed when it has ended.
    """
    webhook = await dependencies.webhooks.get(caller.name, id)
    found: list[Delivery] = []
    if state in {None, "waiting"} and id != CALLBACKS:
        found += await _waiting(webhook, dependencies)
    if state != "waiting":
        ended = await dependencies.deliveries.ended(_receiver(webhook))
        found += [each for _, each in ended if state in {None, each.state}]
    return json_response(DeliveryPage(deliveries=tuple(found[:limit])))


@router.post(
    "/{id}/replay",
    operation_id="replay_webhook_deliveries",
    response_model=Replayed,
    responses=documented(400, 404, 413, 415, 422, 503),
)
async def replay(
    id: WebhookId, wanted: WebhookReplay, dependencies: Injected, caller: Caller
) -> Response:
    """Deliver again: one delivery, or all of jobs and batches that have ended since a time.

    They have the ids that they had, and are sent in the order of the ends.
    """
    webhook = await dependencies.webhooks.get(caller.name, id)
    if (wanted.id is None) == (wanted.since is None):
        raise InvalidRequest("id, since: give one of them")
    if webhook.disabled_at is not None:
        raise InvalidRequest(
            f"the webhook is disabled: {webhook.disabled_reason}: enable it first, with PATCH "
            '{"enabled": true} or `fleet webhooks enable`'
        )
    chosen = _chosen(await dependencies.deliveries.ended(_receiver(webhook)), wanted)
    if wanted.id is not None and not chosen:
        raise UnknownWebhook(f"there is no delivery {wanted.id} of it that has ended")
    if wanted.id is not None and not chosen[0].is_whole:
        raise InvalidRequest(
            f"{wanted.id}: it cannot be made again: its job has a `retention` of its own, so its "
            "address or its text was removed when it had ended"
        )
    chosen = [each for each in chosen if each.is_whole]
    pushed, dropped = 0, 0
    for receiver, again in _by_receiver(webhook, chosen).items():
        added, left = await dependencies.deliveries.put_again(receiver, again)
        pushed, dropped = pushed + added, dropped + left
    await dependencies.deliveries.announce()
    return json_response(Replayed(replayed=pushed, dropped=dropped))


def _chosen(
    ended: Iterable[tuple[StoredDelivery, Delivery]], wanted: WebhookReplay
) -> list[StoredDelivery]:
    """The deliveries that are to be made again, each once, in the order of the ends."""
    by_id: dict[str, StoredDelivery] = {}
    seen: set[str] = set()
    for stored, shown in ended:  # the newest first: the last state of each counts
        is_meant = shown.id == wanted.id or (
            wanted.since is not None
            and shown.at >= wanted.since
            and not (wanted.failed_only and shown.state == "delivered")
        )
        if is_meant and shown.id not in seen:
            by_id[stored.id] = stored
        seen.add(shown.id)
    return sorted(by_id.values(), key=lambda each: each.at)


def _by_receiver(
    webhook: Webhook, chosen: Iterable[StoredDelivery]
) -> dict[Receiver, list[StoredDelivery]]:
    found: dict[Receiver, list[StoredDelivery]] = {}
    for each in chosen:
        receiver = _receiver(webhook)
        if each.url is not None:
            receiver = Receiver.of_url(webhook.tenant, each.url)
        found.setdefault(receiver, []).append(each)
    return found


async def _waiting(webhook: Webhook, dependencies: Dependencies) -> list[Delivery]:
    """What waits for a webhook, the newest first."""
    receiver = _receiver(webhook)
    waiting = await dependencies.deliveries.waiting(receiver, MOST_DELIVERIES)
    _, state, _ = await dependencies.deliveries.view(receiver)
    found = [
        Delivery(**each.model_dump(exclude={"body", "forget"}), state="waiting")
        for each in reversed(waiting)
    ]
    if found and state.tries:
        found[-1] = found[-1].model_copy(update={"tries": state.tries, "error": state.error})
    return found


async def _view(webhook: Webhook, dependencies: Dependencies) -> WebhookView:
    count, state, due_at = await dependencies.deliveries.view(_receiver(webhook))
    return WebhookView(
        **webhook.model_dump(), waiting=count, tries=state.failures, next_at=due_at,
        error=state.error,
    )  # fmt: skip


def _receiver(webhook: Webhook) -> Receiver:
    return Receiver(webhook.tenant, webhook.id, webhook.id)


def _judge(url: str, dependencies: Dependencies) -> None:
    check_address(url, "url", private=dependencies.settings.private_webhooks)


def _issued(webhook: IssuedWebhook, status: Literal[200, 201]) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(webhook.model_dump_json(), status, headers, media_type="application/json")
