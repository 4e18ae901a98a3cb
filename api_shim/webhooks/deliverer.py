"""Delivers webhooks, in one shim at a time: from the outbox to queues, from queues to receivers.

Shims exist in every installation, also in one without a live worker, and no model keeps them busy.
A lease says which of them delivers (`FLEET_LEASE_S`); when it stops it gives the lease back, and
when it is killed another one takes over after that time and sends again what was not noted as sent.

Each receiver has at most one request at a time. A lane, which is all webhooks of a tenant or all
addresses that its requests name, has a bound of requests, and so has the process, so that receivers
that are slow or dead keep nobody else's events back.
"""

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Never

from api_shim.dependencies import Dependencies
from api_shim.following.background_work import cancelled, restart_on_defect
from api_shim.webhooks.delivery_tries import DeliveryTries
from contract import redis_keys
from contract.errors import RelayUnavailable, UnknownWebhook
from contract.webhooks.webhook_models import CALLBACKS, Webhook
from relay.chance import DICE
from relay.webhooks.receivers import (
    OutboxEntry,
    Receiver,
    Routed,
    routed_to,
    why_disabled,
)
from telemetry.repeated_warnings import RepeatedWarnings

if TYPE_CHECKING:
    from outbound.public_web import PublicWeb

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_AT_ONCE: Final = 512
"""Requests of the process."""
_AT_ONCE_OF_A_LANE: Final = 20
_LANES_READ: Final = 1000
_ROUTED_AT_ONCE: Final = 200
_LONGEST_LOOK_S: Final = 5.0
"""Between two looks for what is due."""
_IN_TURN: Final = 50
"""Deliveries of one receiver before it queues up behind the others of its lane."""
_OUTAGE_S: Final = 1.0


class WebhookDeliverer:
    """Competes for the lease, and delivers while it has it, until cancelled."""

    def __init__(self, dependencies: Dependencies) -> None:
        """Nothing is held yet."""
        self._dependencies = dependencies
        self._settings = dependencies.settings
        self._store, self._queue = dependencies.webhooks, dependencies.deliveries
        self._tries = DeliveryTries(dependencies)
        self._process = dependencies.followers.process
        self._changed = asyncio.Event()
        """Set when there may be something new to send."""
        self._sending: dict[str, asyncio.Task[None]] = {}
        """By receiver."""
        self._by_lane: Counter[str] = Counter()

    async def run(self) -> None:
        """Deliver until this process shuts down."""
        await self._dependencies.open_calls.complete(restart_on_defect(self._compete))

    async def _compete(self) -> Never:
        is_failing = False
        while True:
            try:
                if await self._holds():
                    await self._deliver_while_held()
                is_failing = False
            except RelayUnavailable as error:
                # One warning an outage.
                level = logging.DEBUG if is_failing else logging.WARNING
                _log.log(level, "webhooks wait for Redis: %s", error)
                is_failing = True
            await asyncio.sleep(self._settings.renew_s * DICE.uniform(0.8, 1.0))

    async def _holds(self) -> bool:
        return await self._queue.hold(self._process, self._settings.lease_s)

    async def _deliver_while_held(self) -> None:
        """Deliver until another process has the lease; raises RelayUnavailable."""
        from outbound.public_web import PublicWeb  # noqa: PLC0415 - only the deliverer needs aiohttp

        web = PublicWeb(
            private=self._settings.private_webhooks,
            total_s=self._settings.webhook_timeout_s,
            connections=_AT_ONCE,
        )
        async with web:
            tasks = [
                asyncio.create_task(work)
                for work in (self._renew(), self._listen(), self._deliver(web))
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancelled([*tasks, *self._sending.values()])
                await self._resign()
            for task in done:
                task.result()

    async def _renew(self) -> None:
        """Return when the lease is lost, or Redis does not answer for too long."""
        now = asyncio.get_running_loop().time
        renewed_at = now()
        while True:
            await asyncio.sleep(self._settings.renew_s)
            begun_at = now()
            try:
                if not await self._holds():
                    _log.warning("another shim delivers webhooks now")
                    return
                renewed_at = begun_at
            except RelayUnavailable:
                if now() - renewed_at + self._settings.renew_s > self._settings.lease_s:
                    raise

    async def _resign(self) -> None:
        with suppress(RelayUnavailable, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._queue.release(self._process)

    async def _listen(self) -> Never:
        reader = self._dependencies.reader
        while True:
            try:
                async with reader.subscribe(redis_keys.OUTBOX) as subscription:
                    while True:
                        subscription.catch_up()
                        self._changed.set()
                        await subscription.wait(60.0)
                        subscription.take()
            except RelayUnavailable as error:
                _log.debug("webhooks are looked for less often: %s", error)
                await asyncio.sleep(_OUTAGE_S)

    async def _deliver(self, web: "PublicWeb") -> Never:
        while True:
            self._changed.clear()
            await self._route()
            next_s = await self._start_due(web)
            pause_s = _LONGEST_LOOK_S if next_s is None else min(_LONGEST_LOOK_S, next_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def _route(self) -> None:
        """Move what is in the outbox to the queues of its receivers."""
        while entries := await self._queue.outbox(_ROUTED_AT_ONCE):
            await self._store.refresh()
            routed = [(entry, self._routed(entry)) for entry in entries]
            dropped = Counter[str]()
            for count, (entry, _) in zip(await self._queue.route(routed), routed, strict=True):
                if count and entry.notice is not None:
                    dropped[entry.notice.tenant] += count
            for tenant, count in dropped.items():
                _repeated.warn(
                    "tenant %s: %d webhook deliveries were dropped", tenant, count, about=tenant
                )

    def _routed(self, entry: OutboxEntry) -> list[Routed]:
        if entry.notice is None:
            return _skipped(entry)
        # A stream in which another program has put an entry of the far future goes on from there.
        at = min(entry.at, self._queue.now)
        try:
            return routed_to(entry.notice, at, self._store.of(entry.notice.tenant).values())
        except LookupError:  # a status that this version does not know
            return _skipped(entry)

    async def _start_due(self, web: "PublicWeb") -> float | None:
        """Send what is due, of lanes with the fewest requests first, as far as there is room.

        Returns the seconds until more is due; None: nothing is waiting for a time.
        """
        due = await self._queue.due(_LANES_READ, 2 * _AT_ONCE_OF_A_LANE)
        for lane in sorted(due.lanes, key=lambda lane: self._by_lane[lane]):
            for receiver in due.lanes[lane]:
                if len(self._sending) >= _AT_ONCE or self._by_lane[lane] >= _AT_ONCE_OF_A_LANE:
                    break
                if receiver.name not in self._sending:
                    self._start(receiver, web)
        return due.next_s

    def _start(self, receiver: Receiver, web: "PublicWeb") -> None:
        """Serve a receiver; after a failure of ours, leave it alone for a while.

        What could not be noted in Redis is still due, and would be sent again at once, and again.
        """
        task = asyncio.create_task(self._serve(receiver, web))
        self._sending[receiver.name] = task
        self._by_lane[receiver.lane] += 1

        def free() -> None:
            del self._sending[receiver.name]
            self._by_lane[receiver.lane] -= 1
            self._by_lane += Counter()  # without those that are 0
            self._changed.set()

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is None:
                free()
                return
            defect = None if isinstance(error, RelayUnavailable) else error
            _repeated.warn("%s: its webhooks wait: %s", receiver.name, error, exc_info=defect)
            asyncio.get_running_loop().call_later(self._settings.webhook_retry_s, free)

        task.add_done_callback(ended)

    async def _serve(self, receiver: Receiver, web: "PublicWeb") -> None:
        """Deliver what waits for a receiver, until a try fails; raises RelayUnavailable."""
        for _ in range(_IN_TURN):
            first = await self._queue.first(receiver)
            if first is None:
                return
            webhook = await self._webhook_of(receiver)
            if isinstance(webhook, str):
                await self._queue.clear(receiver, webhook)
                return
            if not await self._tries.make(first, webhook, web):
                return

    async def _webhook_of(self, receiver: Receiver) -> Webhook | str:
        """Its webhook; or why nothing is sent there."""
        try:
            webhook = await self._store.get(receiver.tenant, receiver.webhook)
        except UnknownWebhook:
            return (
                "the webhook was removed"
                if receiver.webhook != CALLBACKS
                else ("its tenant has no secret for callbacks")
            )
        return why_disabled(webhook) or webhook


def _skipped(entry: OutboxEntry) -> list[Routed]:
    _repeated.warn(
        "%s: entry %s is damaged or of a newer version, and is skipped", redis_keys.OUTBOX, entry.id
    )
    return []
