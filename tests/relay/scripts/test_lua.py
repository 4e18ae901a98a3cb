"""Every Lua script is sound, contains no key's name, and is listed if its keys span slots.

Subjects: relay/scripts/loader.py.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lupa.lua51 import LuaError
from support.lua_check import FILES, FOLDER, SCRIPTS, all_faults, undefined, unused

from contract import redis_keys
from contract.batches import StoredFile
from contract.conversations import ConversationTurn
from contract.events import Cancelled, EventId, Queued, Started, Usage
from contract.jobs import JobRecord
from contract.requests import CancelAfter
from contract.roster import BackendReport, KnownBackend, WorkerReport
from contract.webhooks.webhook_models import Webhook
from relay import (
    api_keys,
    dead_letters,
    files,
    followers,
    idempotency,
    model_leases,
    reconciler,
    roster,
)
from relay.access import audit_log
from relay.compaction import compactor, log_reader
from relay.connection import ScriptCall
from relay.deletion import tenant_deletions
from relay.metrics import totals
from relay.order import Arrival, Bounds, ClaimFilter
from relay.repair import damaged_keys, index_rebuild, queue_rebuild
from relay.room import orphaned_keys, room_maker, room_state
from relay.scripts import (
    batches,
    id_prefixes,
    jobs,
    queues,
    table_scripts,
    tenant_scripts,
    turn_scripts,
)
from relay.scripts.loader import load, source
from relay.scripts.tenant_scripts import ListSpan
from relay.settings import RelaySettings
from relay.usage import limits, settlement
from relay.webhooks import delivery_queue, receivers, webhook_store

QUEUE = "scripted.chat"
JOB, OTHER = "a" * 32, "b" * 32
FILE = StoredFile(
    id="file-1", tenant="t", filename="f", purpose="batch", size_bytes=1, expires_at=1.0
)
RECORD = JobRecord(
    v=1, id=JOB, kind="chat", status="queued", queue=QUEUE, backend="scripted", tenant="t",
    priority="standard", attempt=1, max_attempts=1, created_at=0.0,
)  # fmt: skip
NEW = jobs.NewJob(RECORD, {}, Queued(queue=QUEUE), None, jobs.NO_FOLLOWER)
TURN = ConversationTurn("c", "queue")
ARRIVAL = Arrival(
    QUEUE, JOB, "{}", 1.0, "standard t", "t", Bounds(1, None, None, None, None, None), turn=TURN
)
STARTED = Started(attempt=1, worker="w", backend="scripted")
DRIVER = batches.DriverToken("batch_1", "t", "token")
TIMES = idempotency.KeyTimes(1, 1.0)
KEY = redis_keys.idempotency("t", "digest")
RECEIVER = receivers.Receiver("t", "wh_1", "wh_1")
DELIVERY = receivers.StoredDelivery(
    id="evt_1", type="job.done", subject=JOB, at=1.0, webhook="wh_1", body="{}"
)
QUEUE_LIMITS = delivery_queue.QueueLimits(1, 1)
FRAME = (
    jobs.keys_of(JOB),
    jobs.NewFrames(JOB, redis_keys.channel(JOB), "n", 1, "1-2", b"1-2 delta {}", ""),
)
CALLS: dict[str, ScriptCall[Any]] = {
    "audit/append": audit_log.append_entry(
        redis_keys.AUDIT, redis_keys.audit_of("t"), "{}", 1
    ),
    "tables/read": table_scripts.read_table("fleet:aliases", "r"),
    "tables/change": table_scripts.change_table("fleet:aliases", "r", "s", "fast", b"{}"),
    "api_keys/issue": api_keys.issue_key("id", b"{}", keeps=True, revision="r", limit=1),
    "api_keys/change": api_keys.change_key(["id", b"", 1, b"{}", "r", 1]),
    "api_keys/revoke": api_keys.revoke_key("id", "r"),
    "api_keys/read": api_keys.read_table("r"),
    "compaction/look_again": compactor.look_again({JOB: 1.0}),
    "compaction/note_place": compactor.note_place("1.0"),
    "conversations/report": turn_scripts.report(QUEUE, "w", 1, 1, {"address": True}),
    "batches/create": batches.create(
        "batch_1", "t", {}, window_s=1, spare_s=1, parts_name="p", input_name="i", limit=1,
        kept=1, not_before=None,
    ),
    "batches/take": batches.take(DRIVER, 1),
    "batches/renew": batches.renew(DRIVER, 1, completed=0, failed=0),
    "batches/free": batches.free(DRIVER),
    "batches/start": batches.start(DRIVER, 1),
    "batches/issue": batches.issue(DRIVER, 1),
    "batches/commit": batches.commit(DRIVER, "p", [0], completed=1, failed=0, usage=Usage()),
    "batches/cancel": batches.cancel("batch_1", "t"),
    "batches/finalize": batches.finalize(DRIVER, gives_up=False),
    "batches/finish": batches.finish(
        DRIVER, "completed", line_errors=b"", parts_name="p", keep_s=1, ttl_s=1,
        notice=b"", created={"output_file_id": (FILE, "files/1")},
    ),
    "dead_letters/choose_retry": dead_letters.choose_retry(JOB, OTHER),
    "dead_letters/confirm_retry": dead_letters.confirm_retry(JOB, OTHER, OTHER),
    "dead_letters/withdraw_retry": dead_letters.withdraw_retry(JOB, OTHER),
    "dead_letters/purge": dead_letters.delete_letter(RECORD),
    "files/create": files.create_record(FILE, "files/1", 1),
    "files/delete": files.delete_record(FILE, "files/1"),
    "files/reserve": files.reserve_bytes("files/1", "t", 1, files.FileBounds(1, 1)),
    "files/forget": files.forget_name("files/1"),
    "files/let_go": files.let_go("1.0", ["files/1"]),
    "files/keep": files.keep_name("files/1", 1),
    "files/due": files.claim_due(1, 1),
    "followers/attend": jobs.attend(JOB, "p", 1),
    "followers/leave": followers.leave(JOB, "p", None),
    "followers/renew": followers.renew("p", 1, [JOB, OTHER]),
    "followers/is_left": followers.is_left(JOB),
    "followers/merge_policy": followers.merge_policy(JOB, CancelAfter(cancel_after_s=1)),
    "idempotency/drop": orphaned_keys.drop_keys(0, 1),
    "idempotency/hold": idempotency.hold_key(KEY, "f", job_id=JOB, queue=QUEUE, times=TIMES),
    "idempotency/release": idempotency.release_key(KEY, JOB),
    "idempotency/renew": idempotency.renew_keys(TIMES, 1),
    "ids/of_tenant": tenant_scripts.of_tenant(redis_keys.DEAD, "t", ListSpan.older_than(None)),
    "ids/matching": id_prefixes._matching(redis_keys.RECENT, "abcd", 0, 1),
    "jobs/begin": jobs.begin(NEW),
    "jobs/begin_single": jobs.begin_single(NEW, redis_keys.single(QUEUE, "t", "m"), KEY),
    "jobs/begin_once": jobs.begin_once(NEW, KEY, "f", ttl_s=1, renew_s=1.0),
    "jobs/begin_turn": turn_scripts.begin_turn(NEW, TURN, 1, None),
    "jobs/start": jobs.start(JOB, STARTED),
    "jobs/start_turn": turn_scripts.start_turn(
        JOB, QUEUE, STARTED, turn_scripts.TurnPlace("c", "a"), turn_scripts.Remembered(1, 1)
    ),
    "jobs/adopt": jobs.adopt(OTHER, JOB, 1),
    "jobs/look_at": jobs.look_at(OTHER, [JOB], 1),
    "jobs/note_done": jobs.note_done(JOB, [OTHER]),
    "jobs/unblock": jobs.unblock(JOB, 1, None),
    "jobs/append": jobs.append([FRAME], 1, 1),
    "jobs/hand_over": jobs.hand_over(JOB, 1, Queued(queue=QUEUE), counts=True, is_lost=False),
    "jobs/move": jobs.move(RECORD, "{}", Queued(queue=QUEUE)),
    "jobs/may_move": jobs.may_move(JOB, 1),
    "jobs/end": jobs.end(JOB, Cancelled(by="caller"), RelaySettings()),
    "jobs/statuses": jobs.statuses([JOB, OTHER]),
    "jobs/compact": compactor.compact(JOB, ended_at="1.0", length=1, moved=[], entries=[]),
    "jobs/forget": jobs.forget([JOB], "t"),
    "logs/page": log_reader.page_after(JOB, EventId(1, 0)),
    "maintainer/renew": reconciler.renew_lease("w", 1),
    "maintainer/resign": reconciler.release_lease("w"),
    "dead_letters/keep_message": dead_letters.keep_message(
        QUEUE, b"", reason="", size_bytes=0, job_id="", limit=1, ttl_s=1
    ),
    "model_leases/claim": model_leases.claim_lease("b", "m", "w", 1),
    "model_leases/renew": model_leases.renew_lease("b", "m", "w", 1, wanted_s=1),
    "model_leases/release": model_leases.release_lease("b", "m", "w", wanted_s=1),
    "metrics/add": totals.add("p", 1, [], most_names=1, now=0.0),
    "probe/may_write": queues.may_write(),
    "queues/expect": queues.expect(ARRIVAL),
    "queues/oldest": queues.oldest(QUEUE),
    "queues/enqueue": queues.enqueue(ARRIVAL, "ticket"),
    "queues/claim": queues.claim(
        QUEUE, "w", ClaimFilter(), lease_s=1, patience=queues.Patience(1, 1), look_ahead=1,
        drained=redis_keys.drained(QUEUE, 1),
    ),
    "queues/release": queues.release(QUEUE, JOB, "", redis_keys.drained(QUEUE, 1)),
    "queues/give_back": queues.give_back(
        QUEUE, JOB, old="1", new=2, delay_s=0, ticket="", facts="{}"
    ),
    "queues/supersede": queues.supersede(QUEUE, JOB, 1, redis_keys.drained(QUEUE, 1)),
    "queues/withdraw": queues.withdraw(QUEUE, JOB),
    "queues/wake": queues.wake(QUEUE, 1),
    "queues/forget": queues.forget(QUEUE, "w"),
    "queues/schedule": queues.schedule(QUEUE, "", "{}", "{}", None),
    "queues/unblock": queues.unblock(QUEUE, JOB, 1.0),
    "queues/survey": queues.survey([QUEUE], [1], 1, 1.0),
    "queues/renew": queues.renew(QUEUE, "w", 1, [(JOB, 1)]),
    "queues/expired": queues.expired(QUEUE, 1),
    "queues/foreign": queues.foreign(QUEUE, 1),
    "webhooks/route": delivery_queue.route(
        receivers.OutboxEntry("1-0", None), [receivers.Routed(RECEIVER, DELIVERY)],
        QUEUE_LIMITS,
    ),
    "webhooks/settle": delivery_queue.settle(
        delivery_queue.FirstDelivery(RECEIVER, "1-0", DELIVERY, delivery_queue.ReceiverState()),
        delivery_queue.TryOutcome("delivered", 200, "", 1.0),
    ),
    "webhooks/due": delivery_queue.due(1, 1),
    "webhooks/clear": delivery_queue.clear(RECEIVER, "why"),
    "webhooks/hasten": delivery_queue.hasten(RECEIVER),
    "webhooks/replace_secret": webhook_store.replace_secret(
        Webhook(id="wh_1", tenant="t", created_at=0.0), b"", "{}"
    ),
    "webhooks/replay": delivery_queue.replay(RECEIVER, [DELIVERY], QUEUE_LIMITS),
    "repair/look": damaged_keys.look(0, 1),
    "repair/set_aside": damaged_keys.rename(redis_keys.holders(QUEUE), "hash", 1.0, ["a", "b"]),
    "repair/place": queue_rebuild.place(QUEUE, 1.0, [True, True], [JOB]),
    "repair/note_facts": queue_rebuild.note_facts(QUEUE, [JOB, "{}"]),
    "repair/index": index_rebuild.add([redis_keys.LIVE, redis_keys.QUEUES], [1, JOB, 1, QUEUE]),
    "room/survey": room_maker.survey([JOB, OTHER]),
    "room/remove": room_maker.remove([JOB], {"t": 1}, 1.0, 1.0),
    "room/tell": room_state.tell(room_state.RoomState(mark_bytes=1, tenants={}), 1),
    "roster/report": roster.write_report(
        WorkerReport(
            v=1, name="w", host="h", pid=1, started_at=0, draining=False, backends=(), queues=(),
        ), 1.0,
    ),
    "roster/remember": roster.remember(
        KnownBackend(
            backend=BackendReport(
                name="box", type="scripted", endpoint="e", healthy=False, capabilities=(),
                models=(),
            ),
            slots={QUEUE: 1},
        ), 1.0, 1,
    ),
    "tenants/begin": tenant_deletions.begin("t", "1.0", {"status": "running"}),
    "tenants/count": tenant_deletions.count("t", "files", 1, "nonce"),
    "tenants/end": tenant_deletions.end("t", "1.0", ""),
    "tenants/erase": tenant_deletions.erase("t", "jobs", [redis_keys.record(JOB)]),
    "usage/index": settlement.index_tenant("t", "2026-11-29", 1),
    "usage/reserve": limits.reserve(
        limits.UsageReservation(JOB, QUEUE, "t", 1, 1, limits.Limits(1, 1, 1, 1), None, ""),
        datetime.now(UTC).timestamp(),
    ),
    "usage/check_again": limits.check_again(1.0, [b"t a"]),
    "usage/release": limits.release("t", JOB),
    "usage/settle": settlement.settle(
        settlement.Part("t", datetime(2026, 1, 1, tzinfo=UTC), ""), ttl_s=1, most_rows=1
    ),
}  # fmt: skip
"""One call of each script."""


def slot_of(key: str) -> str:
    """What will be the hash tag of a key: a job, a queue, a batch, or the key itself."""
    for pattern in (
        r"fleet:(j:[^:]+):",
        r"fleet:(q:[^:]+):",
        r"fleet:(batch:[^:]+)",
        r"fleet:(webhook:[^:/]+)",
        r"fleet:(t:[^:]+):(?:usage|spending|reserved)",
    ):
        if match := re.match(pattern, key):
            return match[1]
    return f"q:{key}" if key == QUEUE else key


def slots_of(name: str) -> set[str]:
    call = CALLS[name]
    patterns = [
        each for each in call.args if isinstance(each, str) and re.match("fleet:.*[*]", each)
    ]
    return {slot_of(key) for key in [*call.keys, *patterns]}


def test_no_script_has_a_fault() -> None:
    assert all_faults() == []


def test_every_script_has_a_typed_function() -> None:
    assert list(SCRIPTS) == sorted(CALLS)
    assert {name: load(name) for name in SCRIPTS} == {n: c.script for n, c in CALLS.items()}


@pytest.mark.parametrize("path", FILES)
def test_no_script_knows_how_a_key_is_named(path: str) -> None:
    code = re.sub(r"--[^\n]*", "", source(path))
    is_maker = path == "shared/key_pattern.lua"

    assert "fleet:" not in code
    assert not re.search(r"KEYS\[[^\]]*\]\s*\.\.|\.\.\s*KEYS|string\.\w+\(KEYS", code)
    assert is_maker or not re.search(r"'[\w:]*:[\w:]*'\s*\.\.|\.\.\s*':", code)


@pytest.mark.parametrize("path", FILES)
def test_a_script_documents_its_keys_arguments_and_reply(path: str) -> None:
    comments = "\n".join(re.findall(r"^--.*", source(path), re.MULTILINE))

    assert re.search("Defines|Names|Returns", comments)
    assert path.startswith("shared/") or ("KEYS" in comments and "Returns" in comments)


def test_scripts_whose_keys_span_slots_are_listed() -> None:
    listed = re.findall(r"^\| `(\w+/\w+)` \|", (FOLDER / "README.md").read_text(), re.MULTILINE)

    assert listed == [name for name in SCRIPTS if len(slots_of(name)) > 1]


@pytest.mark.parametrize(
    ("text", "fault"),
    [("return misspelt(1)", "misspelt"), ("local a = function() b = 1 end return a", "b")],
)
def test_an_undefined_global_is_found(text: str, fault: str) -> None:
    assert undefined(text) == {fault}


def test_an_unused_local_is_found() -> None:
    assert unused("local a, b = 1, 2\nfor i = 1, a do return 'b' end") == {"b", "i"}


def test_a_script_that_does_not_parse_is_found() -> None:
    with pytest.raises(LuaError):
        undefined("local = 1")


def test_no_python_of_the_relay_holds_lua() -> None:
    relay = FOLDER.parent

    assert [
        path.name for path in Path(relay).rglob("*.py") if "redis.call" in path.read_text()
    ] == []
