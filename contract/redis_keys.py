"""Names of all Redis keys and channels, Celery queues and tasks; no other file spells one.

Two families, which may be on two servers: *queue keys* carry a queue's name (waiting jobs, leases)
and *job keys* carry a job's id (record, log, channel).
"""

import re
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

TICKET_TASK: Final = "fleet.ticket"
"""Name of the Celery task of a ticket: "there is work in this queue"."""

UNREADABLE_TASK: Final = "fleet.unreadable"
"""Name of the Celery task that stores a message that no worker can read."""

LIVE: Final = "fleet:live"
"""Sorted set of jobs that have not ended: job id by creation time."""

DEADLINES: Final = "fleet:deadlines"
"""Sorted set of jobs that have a deadline: job id by the unix time at which it passes."""

BLOCKED: Final = "fleet:blocked"
"""Sorted set of jobs that wait for other jobs to end: job id by the unix time of the next look."""

PARENTS: Final = "fleet:parents"
"""Sorted set of ended jobs for which others wait: job id by the unix time of its end. Also the
pub/sub channel of their ids."""

RECENT: Final = "fleet:recent"
"""Sorted set of jobs by creation time, for listing; trimmed to those that may have a record."""

COMPACTED: Final = "fleet:compacted"
"""String with a unix time: jobs created until then were looked at for compaction."""

UNCOMPACTED: Final = "fleet:uncompacted"
"""Sorted set of such jobs that were not ready: job id by the unix time of the next look."""

DEAD: Final = "fleet:dead"
"""Sorted set of dead letters: job id by the unix time at which it ran out of attempts."""

UNREADABLE: Final = "fleet:unreadable"
"""Stream of entries of queues' lists that were neither ticket nor job."""

UNREADABLE_COUNTS: Final = "fleet:unreadable:counts"
"""Hash with the number of such messages, by queue."""

IDEMPOTENCY: Final = "fleet:idempotency"
"""Sorted set of idempotency keys: name in Redis by the unix time of its next renewal."""

FOLLOWED: Final = "fleet:followed"
"""Sorted set of jobs to cancel without followers: job id by the unix time of the next check."""

MAINTAINER: Final = "fleet:maintainer"
"""String with the worker that maintains all leases, tickets and records."""

MAINTAINER_CHANNEL: Final = "fleet:maintainer:looks"
"""Pub/sub channel of its name at each renewal; an empty message: it has stopped."""

ROOM: Final = "fleet:room"
"""String with how Redis's memory is shared while it is nearly full (JSON, relay/room)."""

ROSTER: Final = "fleet:roster"
"""Sorted set of workers: name by the unix time at which its report expires."""

QUEUES: Final = "fleet:queues"
"""Sorted set of queues by last use; one that was empty for `log_ttl_s` is removed."""

KNOWN: Final = "fleet:known"
"""Sorted set of queues that a worker has served, by the unix time at which one last reported."""

ALIASES: Final = "fleet:aliases"
"""Hash of aliases that admins set: `=<name>` to JSON; `revision` changes with every change."""

MOVABLE: Final = "fleet:movable"
"""Sorted set of jobs that may move to another target: job id by the unix time of the next look."""

AUDIT: Final = "fleet:audit:done"
"""Sorted set of what was done with rights to change the fleet: JSON by its unix microsecond."""

AUDIT_REFUSED: Final = "fleet:audit:refusals"
"""The same of what was refused to keys that lack the permission."""

AUDIT_OF_ADMINS: Final = "fleet:audit:admins"
"""List of the microseconds of the admins' entries, the oldest first."""

DELETIONS: Final = "fleet:deletions"
"""Sorted set of tenants whose deletion has not ended: name by the unix time of the request."""

ERASER: Final = "fleet:deletions:eraser"
"""String with the shim that deletes what tenants had. Also a pub/sub channel of its name."""

KEYS_USED: Final = "fleet:keys:used"
"""Hash with the unix time of the last call with each API key, by its id."""

KEYS: Final = "fleet:keys"
"""Hash of API keys: id to its entry; `revision` changes with every change."""

BATCHES: Final = "fleet:batches"
"""Sorted set of batches that have not ended: batch id by when its driver's lease expires."""

STORED: Final = "fleet:stored"
"""Sorted set of everything in the file storage: its name there by the unix time to delete it."""

METRICS: Final = "fleet:metrics"
"""Hash of what all processes of the fleet have counted together: field to number."""

UNSETTLED: Final = "fleet:unsettled"
"""Stream of jobs that have ended, with what they used: what the ledger does not have yet."""

OUTBOX: Final = "fleet:outbox"
"""Stream of ended jobs and batches of which webhooks are to be told. Also a pub/sub channel with a
message for each."""

WEBHOOKS: Final = "fleet:webhooks"
"""Hash of webhooks: `=<tenant>/<id>` to JSON; `revision` changes with every change."""

WEBHOOKS_DUE: Final = "fleet:webhooks:due"
"""Sorted set of lanes with waiting deliveries: name by the unix time of the next try."""

WEBHOOKS_WAITING: Final = "fleet:webhooks:waiting"
"""Hash of how many deliveries wait: tenant to number."""

DELIVERER: Final = "fleet:webhooks:deliverer"
"""String with the shim that delivers webhooks. Also the pub/sub channel of its name at each
renewal; an empty message: it has stopped."""

RESERVING: Final = "fleet:reserving"
"""Sorted set of new reservations, `<tenant> <job id>`, by the unix time of their check."""

FILE_SIZES: Final = "fleet:stored:sizes"
"""Hash of stored files: name to `<bytes> <tenant>`, until their bytes are deleted."""

FILE_BYTES: Final = "fleet:stored:bytes"
"""Hash of the sums of those: of each tenant by `=<tenant>`, and of `all`; `#<tenant>`: how many."""

SUSPECTS: Final = "fleet:suspects"
"""Set of keys over which a command or script has failed, for the maintainer to look at."""

DAMAGED: Final = "fleet:damaged"
"""Hash of keys that were set aside: key to `<unix time> <the type that was found>`."""

HELD: Final = "fleet:held"
"""Sorted set of stored files that batches read: name by the unix time until which they may."""

QUEUE_NAME: Final = r"^[a-z][a-z0-9_-]{0,39}\.[a-z]{1,16}$"
"""As in `box.chat`: a backend and a kind of job."""
BACKEND_NAME: Final = re.compile(r"^[a-z][a-z0-9_-]{0,39}$")
JOB_ID: Final = re.compile(r"^[0-9a-f]{32}$")
JOB_ID_BEGINNING: Final = re.compile(r"^[0-9a-f]{4,32}$")
"""A prefix that clients may send in place of an id, if only one of theirs matches."""


def job_id(task_id: str) -> str:
    """The job that a Celery task becomes: its id without dashes, if it is a UUID as usual."""
    try:
        return UUID(task_id).hex
    except ValueError:
        # A lone surrogate is escaped: any task id yields a job id.
        escaped = task_id.encode("utf-8", "backslashreplace").decode()
        return uuid5(NAMESPACE_URL, f"celery/{escaped}").hex


def queue_name(backend: str, kind: str) -> str:
    """The Celery queue of a backend's jobs of one kind, as in `ollama.chat`."""
    return f"{backend}.{kind}"


def backend_of(queue: str) -> str:
    """The backend a queue belongs to."""
    return queue.rpartition(".")[0]


def kind_of(queue: str) -> str:
    """The kind of job a queue holds."""
    return queue.rpartition(".")[2]


def backlog(queue: str) -> str:
    """Sorted set of waiting jobs: job id by virtual start (unix seconds)."""
    return f"fleet:q:{queue}:backlog"


def urgent(queue: str) -> str:
    """The part of the backlog that is not of class `batch`, with the same scores."""
    return f"fleet:q:{queue}:urgent"


def paused(queue: str) -> str:
    """String that exists while no job of a queue may start: why, and until when (JSON)."""
    return f"fleet:q:{queue}:paused"


def scheduled(queue: str) -> str:
    """Hash of what is scheduled: `tokens`, and `jobs <tenant>` and `tokens <tenant>` of each."""
    return f"fleet:q:{queue}:scheduled"


def schedule(queue: str) -> str:
    """String with when a queue runs: an admin's pause, and its run windows (JSON)."""
    return f"fleet:q:{queue}:schedule"


def line(queue: str, model: str) -> str:
    """The part of the backlog for one variant of a model, with the same scores."""
    return f"fleet:q:{queue}:line:{model}"


def arrivals(queue: str) -> str:
    """Sorted set of waiting jobs: job id by the unix time at which it was enqueued."""
    return f"fleet:q:{queue}:arrivals"


def lines(queue: str) -> str:
    """Sorted set of the variants for which jobs wait: variant by its first job's virtual start."""
    return f"fleet:q:{queue}:lines"


def delayed(queue: str) -> str:
    """Sorted set of jobs between two attempts: job id by the unix time at which it is due."""
    return f"fleet:q:{queue}:delayed"


def clocks(queue: str) -> str:
    """Hash of virtual times (unix seconds): `now` of the queue, `<class> <tenant>` of a tenant."""
    return f"fleet:q:{queue}:clocks"


def load(queue: str) -> str:
    """Hash of what waits: `tokens`, and `jobs <tenant>` and `tokens <tenant>` of each tenant."""
    return f"fleet:q:{queue}:load"


def facts(queue: str) -> str:
    """Hash of what a claim needs to know of each waiting or leased job: job id to JSON."""
    return f"fleet:q:{queue}:facts"


def leases(queue: str) -> str:
    """Sorted set of leased jobs: job id by the unix time at which the lease expires."""
    return f"fleet:q:{queue}:leases"


def holders(queue: str) -> str:
    """Hash of who holds each leased job: job id to `<attempt> <worker>`."""
    return f"fleet:q:{queue}:holders"


def drained(queue: str, minute: int) -> str:
    """Counter of the jobs of a queue that ended in a minute (unix seconds / 60)."""
    return f"fleet:q:{queue}:drained:{minute}"


def single(queue: str, tenant: str, model: str) -> str:
    """String with the job that pulls a model; all requests of the tenant for it share that job."""
    return f"fleet:q:{queue}:single:{tenant}:{model}"


def homes(queue: str) -> str:
    """Hash of where conversations ran last: conversation id to the id of an address."""
    return f"fleet:q:{queue}:homes"


def homes_used(queue: str) -> str:
    """Sorted set of those conversations, by the unix time of their last start."""
    return f"fleet:q:{queue}:homes:used"


def homes_of(queue: str, tenant: str) -> str:
    """List of those conversations of a tenant, in the order in which they began."""
    return f"fleet:q:{queue}:homes:of:{tenant}"


def addresses(queue: str) -> str:
    """Hash of the addresses that work: id to `<expires at> <lease in seconds> <worker>`."""
    return f"fleet:q:{queue}:addresses"


def behind(queue: str) -> str:
    """Sorted set of conversations with messages behind the others, by when they were looked at."""
    return f"fleet:q:{queue}:behind"


def turns(conversation: str) -> str:
    """List of the jobs of a conversation that may not have ended, the oldest first."""
    return f"fleet:conversation:{conversation}"


def recent(tenant: str) -> str:
    """Sorted set of a tenant's newest jobs by creation time, for listing."""
    return f"fleet:t:{tenant}:recent"


def deletion(tenant: str) -> str:
    """Hash with the receipt of the last deletion of a tenant."""
    return f"fleet:deletion:{tenant}"


def usage(tenant: str, day: str) -> str:
    """Hash of what a tenant used on a day (`2026-11-29`): `[backend, kind, model]` to counts."""
    return f"fleet:t:{tenant}:usage:{day}"


def spending(tenant: str) -> str:
    """Hash of what counts against a tenant's limits, and how far its usage is settled."""
    return f"fleet:t:{tenant}:spending"


def reserved(tenant: str) -> str:
    """Hash of what is reserved for a tenant's jobs that have not ended: job id to amounts."""
    return f"fleet:t:{tenant}:reserved"


def usage_tenants(day: str) -> str:
    """Set of the tenants that used something on a day."""
    return f"fleet:usage:{day}"


def record(job_id: str) -> str:
    """Hash with a job's record."""
    return f"fleet:j:{job_id}:record"


def log(job_id: str) -> str:
    """Stream with a job's events."""
    return f"fleet:j:{job_id}:log"


def children(job_id: str) -> str:
    """Set of jobs that wait for the end of a job."""
    return f"fleet:j:{job_id}:children"


def audience(job_id: str) -> str:
    """Sorted set of processes that follow a job: name by the unix time its lease expires."""
    return f"fleet:j:{job_id}:audience"


def idempotency(tenant: str, digest: str) -> str:
    """Hash of the job of a tenant's Idempotency-Key; `digest` is the key's SHA-256."""
    return f"fleet:idempotency:{tenant}:{digest}"


def channel(job_id: str) -> str:
    """Pub/sub channel of a job's events, published as they are appended."""
    return f"fleet:j:{job_id}:events"


def worker_report(worker: str) -> str:
    """String with a worker's report (JSON)."""
    return f"fleet:worker:{worker}:report"


def metrics_sequence(process: str) -> str:
    """String with the number of the last report that a process has added to the totals."""
    return f"fleet:metrics:sequence:{process}"


def worker_channel(worker: str) -> str:
    """Pub/sub channel of a worker: the ids of jobs whose leases it has lost."""
    return f"fleet:worker:{worker}:orders"


def known(backend: str) -> str:
    """Hash of what is known of a backend: `backend` (JSON), and slots of one worker by queue."""
    return f"fleet:backend:{backend}:known"


def idle(queue: str) -> str:
    """Sorted set of workers with slots that wait for a wake-up of a queue, by how many."""
    return f"fleet:q:{queue}:idle"


def wake_channel(worker: str) -> str:
    """Pub/sub channel on which a worker gets the name of a queue that has a new job."""
    return f"fleet:worker:{worker}:wakes"


def residence(backend: str, model: str) -> str:
    """Hash of the `owner` of a model in memory, when another `wanted` it last, and `by` whom."""
    return f"fleet:residence:{backend}:{model}"


def vector(backend: str, digest: str) -> str:
    """String with a cached vector (float32).

    `digest` is of model, options and text, behind the tenant and a colon unless they share vectors.
    """
    return f"fleet:vector:{backend}:{digest}"


def file(file_id: str) -> str:
    """Hash of a file's record."""
    return f"fleet:file:{file_id}"


def files(tenant: str) -> str:
    """Sorted set of a tenant's files by creation time, for listing."""
    return f"fleet:t:{tenant}:files"


def batch(batch_id: str) -> str:
    """Hash of a batch's record and its driver's lease."""
    return f"fleet:batch:{batch_id}"


def batch_rows(batch_id: str) -> str:
    """Bitmap of the rows of a batch whose answer is in a part."""
    return f"fleet:batch:{batch_id}:rows"


def batch_parts(batch_id: str) -> str:
    """List of a batch's parts in the file storage, which its output is assembled from."""
    return f"fleet:batch:{batch_id}:parts"


def batches(tenant: str) -> str:
    """Sorted set of a tenant's batches by creation time, for listing."""
    return f"fleet:t:{tenant}:batches"


def live_batches(tenant: str) -> str:
    """Set of a tenant's batches that have not ended; they share its window of running jobs."""
    return f"fleet:t:{tenant}:batches:live"


def webhook_secrets(tenant: str) -> str:
    """Hash of a tenant's signing secrets: id of the webhook to JSON."""
    return f"fleet:t:{tenant}:webhook:secrets"


def damaged(key: str) -> str:
    """What was found in place of a key, of another type: for somebody to look at."""
    return f"fleet:damaged:{key}"


def audit_of(tenant: str) -> str:
    """List of the microseconds of a tenant's entries of the audit log, the oldest first."""
    return f"fleet:audit:of:{tenant}"


def audit_refused_of(tenant: str) -> str:
    """The same of what was refused to the tenant."""
    return f"fleet:audit:refused:{tenant}"


def webhook_queue(receiver: str) -> str:
    """Stream of the deliveries that wait for a receiver, in the order of the ends."""
    return f"fleet:webhook:{receiver}:queue"


def webhook_state(receiver: str) -> str:
    """Hash of how the last tries went at a receiver."""
    return f"fleet:webhook:{receiver}:state"


def webhook_deliveries(webhook: str) -> str:
    """Stream of the deliveries of a webhook that have ended; `webhook` is `<tenant>/<id>`."""
    return f"fleet:webhook:{webhook}:deliveries"


def webhook_lane(lane: str) -> str:
    """Sorted set of the receivers of a lane: name by the unix time of the next try."""
    return f"fleet:webhook:{lane}:due"
