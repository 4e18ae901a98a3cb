"""Dependencies of the routes: objects built once a process, and parameters that FastAPI injects.

A route declares `Injected`, `NativeSubmission` or `DropIn`. The folders below (submission,
following, http) receive the services they need, and import nothing from here.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, NamedTuple, Self

from fastapi import Depends, Query, Request
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope

from api_shim.access.audit_trail import AuditTrail
from api_shim.disk_room import RedisDisk
from api_shim.file_room import FileRoom
from api_shim.file_storage import Storage
from api_shim.following.background_work import restart_on_defect
from api_shim.following.drop_in import DropInCall, FollowingServices
from api_shim.following.queue_position import QueuePositions
from api_shim.following.shutdown import OpenCalls
from api_shim.http.authentication import Authenticator, Caller, tenant_in
from api_shim.http.error_hints import hints_for
from api_shim.http.headers import Preferences, Preferred
from api_shim.http.json_body import HAS_LARGE_BODY
from api_shim.overview.fleet_reader import FleetReader
from api_shim.overview.fleet_watch import FleetWatch
from api_shim.queue_upkeep import ConfiguredQueues, StandIn
from api_shim.settings import ShimSettings
from api_shim.submission.alias_cache import AliasCache
from api_shim.submission.alias_targets import pools_with_aliases
from api_shim.submission.receiver_address import check_address
from api_shim.submission.roster_cache import Pool, RosterCache
from api_shim.submission.submission import Submission, SubmissionServices
from contract.tenants import Tenant
from relay.access.audit_log import AuditLog
from relay.aliases.alias_store import AliasStore
from relay.api_keys import ApiKeys
from relay.batches import BatchStore
from relay.connection import Connection
from relay.dead_letters import DeadLetters, UnreadableMessages
from relay.files import FileBounds, Files
from relay.followers import Followers
from relay.idempotency import Idempotency
from relay.log import Log
from relay.metrics.census import Census
from relay.metrics.fleet_metrics import FleetMetrics
from relay.metrics.totals import FleetTotals
from relay.metrics.totals_reporter import TotalsReporter
from relay.queue import Queue
from relay.records import Records
from relay.roster import RosterStore
from relay.subscriber import FOR_FOLLOWERS, Subscriber
from relay.usage.ledger import Ledger
from relay.usage.limits import TenantLimits
from relay.webhooks.delivery_queue import DeliveryQueue, QueueLimits
from relay.webhooks.webhook_store import WebhookStore
from telemetry.process_metrics import ProcessMetrics, single
from telemetry.tracing import Tracing


class ShimTelemetry(NamedTuple):
    """What this process counts, what it reads of the fleet, and its spans."""

    process: ProcessMetrics
    fleet: FleetMetrics
    totals: TotalsReporter
    tracing: Tracing

    @classmethod
    def of(
        cls, process: ProcessMetrics, tracing: Tracing, connection: Connection, most_names: int
    ) -> Self:
        """For one process; nothing is read or sent yet."""
        totals = FleetTotals(connection, most_names)
        fleet = FleetMetrics(totals, Census(connection))
        return cls(process, fleet, TotalsReporter(process.series, totals), tracing)


class Dependencies:
    """The relay and this process's own services, over one connection."""

    def __init__(
        self,
        settings: ShimSettings,
        connection: Connection,
        reader: Subscriber,
        open_calls: OpenCalls,
        metrics: ShimTelemetry,
    ) -> None:
        """Build every service; nothing is opened or started yet."""
        self.metrics, self.settings = metrics, settings
        self.connection, self.reader = connection, reader
        self.webhooks, self.deliveries = _webhooks(connection, settings)
        self.queue, self.records = Queue(connection, self.webhooks.has), Records(connection)
        self.followers = Followers(connection, is_ending=lambda: open_calls.is_shutting_down)
        self.log = Log(connection, reader, self.followers.job_ended)
        self.roster = RosterCache(
            RosterStore(connection), settings.roster_max_age_s, settings.configured_backends
        )
        self.fleet_watch = FleetWatch(FleetReader(connection, self.roster))
        self.positions = QueuePositions(
            self.records, self.queue.positions, self.roster, connection.now, settings.place_every_s
        )
        self.api_keys, self.unreadable = ApiKeys(connection), UnreadableMessages(connection)
        self.authenticator = Authenticator(self.api_keys, connection, settings)
        self.audit_trail = AuditTrail(AuditLog(connection), self.records)
        self.open_calls, self.idempotency = open_calls, Idempotency(connection)
        self.ledger, self.limits = Ledger(connection), TenantLimits(connection)
        self.dead_letters = DeadLetters(connection, self.webhooks.has)
        self.storage = Storage(settings.storage_url, settings.disk_reserve_bytes)
        self.redis_disk = RedisDisk(settings.redis_dir, settings.disk_reserve_bytes)
        self.files, self.batches = Files(connection), BatchStore(connection)
        self.file_room = _file_room(settings, self.files, self.storage)
        self.batches_changed, self.files_deleted = asyncio.Event(), asyncio.Event()
        """Set when a batch may be ready to drive, and when bytes of files are to be deleted."""
        self.aliases = AliasCache(AliasStore(connection), settings.aliases, settings.prices)
        self.submission = self._submission(reader)
        self.following = FollowingServices(
            self.log, self.roster, self.followers, open_calls, self.positions, settings.keepalive_s
        )

    def _submission(self, reader: Subscriber) -> SubmissionServices:
        return SubmissionServices(
            self.queue, self.roster, self.idempotency, self.followers, reader,
            self.settings.on_no_worker, self.settings.busy_wait_s, self.metrics.tracing,
            self.aliases, self.redis_disk.demand_room, self.webhooks, self.audit_trail.pulls,
            self.connection.settings,
        )  # fmt: skip

    def listed(self, caller: Tenant, *asked: str) -> Mapping[str, Pool]:
        """The backends as drop-in clients see them: aliases are models beside the others.

        Without what the caller's key may not use. Read the roster first. `asked` are names that a
        client asks for, which the pattern of an alias may fit.
        """
        found = self.roster.seen_by(caller, every_model=True)[1]
        return pools_with_aliases(found, self.aliases.table, caller, *asked)


def _webhooks(connection: Connection, settings: ShimSettings) -> tuple[WebhookStore, DeliveryQueue]:
    check = partial(check_address, field="callback_url", private=settings.private_webhooks)
    bounds = QueueLimits(settings.webhook_queue, settings.webhook_tenant_queue)
    return WebhookStore(connection, check), DeliveryQueue(connection, bounds)


def _file_room(settings: ShimSettings, files: Files, storage: Storage) -> FileRoom:
    bounds = FileBounds(
        settings.tenant_files_bytes,
        settings.files_bytes,
        settings.tenant_share,
        tenant_files=settings.tenant_files,
    )
    return FileRoom(files, storage, bounds, settings.disk_reserve_bytes)


@asynccontextmanager
async def open_dependencies(
    settings: ShimSettings, open_calls: OpenCalls, counted: ProcessMetrics, tracing: Tracing
) -> AsyncGenerator[Dependencies]:
    """Open the connection and subscribe on it; at the end, end open calls and close it."""
    async with Connection.open(settings, counted) as connection, asyncio.TaskGroup() as group:
        reader = Subscriber(connection, expects_jobs=True, at_once=FOR_FOLLOWERS)
        metrics = ShimTelemetry.of(counted, tracing, connection, settings.metrics_names)
        dependencies = Dependencies(settings, connection, reader, open_calls, metrics)
        stand_in = StandIn(connection, dependencies.roster, dependencies.followers.process)
        windows = ConfiguredQueues(connection, dependencies.queue, settings.queues)
        counted.series.read("subscriptions", lambda: single(reader.count))
        counted.series.read("open_streams", lambda: single(open_calls.followed))
        tasks = [
            group.create_task(reader.listen()),
            *(
                group.create_task(restart_on_defect(run))
                for run in (
                    dependencies.followers.keep_leases,
                    dependencies.authenticator.watch,
                    dependencies.authenticator.watch_issuer,
                    dependencies.aliases.watch,
                    dependencies.webhooks.watch,
                    stand_in.run,
                    stand_in.make_room,
                    windows.apply,
                    metrics.totals.run,
                    counted.watch_loop,
                )
            ),
        ]
        try:
            yield dependencies
        finally:
            open_calls.close()
            for task in tasks:
                task.cancel()
            await metrics.totals.finish()
            await tracing.aclose()


async def _injected(connection: HTTPConnection) -> Dependencies:
    dependencies: Dependencies = connection.app.state.dependencies
    return dependencies


Injected = Annotated[Dependencies, Depends(_injected)]
"""A route's parameter: the dependencies."""


async def _native_submission(
    dependencies: Injected,
    caller: Caller,
    preferences: Preferred,
    *,
    enqueue_anyway: Annotated[
        bool, Query(description="Enqueue for the named backend although no worker serves it.")
    ] = False,
) -> Submission:
    return Submission(dependencies.submission, caller, preferences, enqueue_anyway=enqueue_anyway)


NativeSubmission = Annotated[Submission, Depends(_native_submission)]
"""A native route's parameter: submits jobs."""


def drop_in_call(
    scope: Scope, receive: Receive, dependencies: Dependencies, preferences: Preferences
) -> DropInCall:
    """The call of a drop-in route."""
    submission = Submission(
        dependencies.submission,
        tenant_in(scope),
        preferences,
        hints=hints_for(scope["path"]),
        is_followed=True,
    )
    is_large = HAS_LARGE_BODY in scope.get("state", {})
    return DropInCall(receive, dependencies.following, submission, has_large_body=is_large)


async def _drop_in(request: Request, dependencies: Injected, preferences: Preferred) -> DropInCall:
    return drop_in_call(request.scope, request.receive, dependencies, preferences)


DropIn = Annotated[DropInCall, Depends(_drop_in)]
"""A drop-in route's parameter: submits and follows a job."""
