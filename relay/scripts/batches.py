"""Scripts of a batch: its record, its driver's lease, its rows and parts (relay/lua/batches).

Every step of a driver carries the token of its lease. It changes nothing once another driver has
the batch; the answer is then None or false.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from contract import redis_keys
from contract.batches import LastStatus, StoredFile
from contract.events import Usage
from contract.wire import encode
from relay.connection import Argument, Hash, ScriptCall, pairs
from relay.scripts.loader import load

T = TypeVar("T")


class DriverToken(NamedTuple):
    """Identifies a driver's lease: the batch, its tenant and the token."""

    batch_id: str
    tenant: str
    token: str


def create(
    batch_id: str,
    tenant: str,
    fields: Mapping[str, str | bytes],
    *,
    window_s: float,
    spare_s: float,
    parts_name: str,
    input_name: str,
    limit: int,
    kept: int,
    not_before: float | None,
) -> ScriptCall[Hash | None]:
    """Create a batch's record, unless it exists, and hold its input from deletion.

    `fields` are the record's, without status and times. The window of `window_s` seconds begins at
    `not_before` (unix seconds), else now. `input_name` in the storage is held until `spare_s` after
    it; what is below `parts_name` is deleted 30 days after it. Of the tenant's batches that have
    ended, the newest `kept` stay. Returns the record; None if the tenant has `limit` batches that
    have not ended.
    """
    args: list[Argument] = [
        batch_id, window_s, spare_s, parts_name, input_name, limit, kept, redis_keys.batch("*"),
        not_before or 0, *(each for field in fields.items() for each in field),
    ]  # fmt: skip
    return ScriptCall(
        load("batches/create"),
        [*_keys(batch_id, tenant), redis_keys.STORED, redis_keys.HELD],
        args,
        _hash,
    )


def take(driver: DriverToken, lease_s: float) -> ScriptCall[Hash | None]:
    """Lease a batch for `lease_s` seconds. Returns its record; None if another driver has it."""
    args: list[Argument] = [driver.batch_id, driver.token, lease_s]
    return ScriptCall(load("batches/take"), _keys(driver.batch_id, driver.tenant), args, _hash)


def renew(
    driver: DriverToken, lease_s: float, *, completed: int, failed: int
) -> ScriptCall[tuple[str, float, int] | None]:
    """Renew a lease, and write the number of rows whose answers are in no part yet.

    Returns the batch's status, Redis's time (unix seconds), and how many batches of the tenant
    are driven, with this one.
    """
    return _driven("renew", driver, _pulse, lease_s, completed, failed)


def free(driver: DriverToken) -> ScriptCall[bool]:
    """End a lease: another driver may take the batch at once, or when its time has come."""
    return _driven("free", driver, bool)


def start(driver: DriverToken, total: int) -> ScriptCall[bool | None]:
    """Set the number of rows, and the status `in_progress`; one that is cancelled stays so.

    Returns False, and leaves the status, if its time has not come.
    """
    return _driven("start", driver, _started, total)


def issue(driver: DriverToken, rows: int) -> ScriptCall[bool]:
    """Record that jobs of the rows before this one may exist."""
    return _driven("issue", driver, bool, rows)


def commit(
    driver: DriverToken,
    part: str,
    rows: Sequence[int],
    *,
    completed: int,
    failed: int,
    usage: Usage,
) -> ScriptCall[bool]:
    """List a part, mark its rows as answered and add up its counts and tokens: all or nothing.

    The same part again changes nothing. False, too, if one of the rows is marked already.
    """
    return _driven(
        "commit", driver, bool, part, completed, failed, usage.prompt_tokens,
        usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens, *rows,
    )  # fmt: skip


def cancel(batch_id: str, tenant: str) -> ScriptCall[tuple[bool, Hash]]:
    """Request a batch's end. Returns whether this changed its status, and the record."""
    return ScriptCall(load("batches/cancel"), _keys(batch_id, tenant), [], _cancelled)


def finalize(driver: DriverToken, *, gives_up: bool) -> ScriptCall[tuple[str, bool] | None]:
    """Set the status `finalizing`: no more rows are run.

    Returns the status, which a cancellation may have changed before, and whether this driver or
    an earlier one gave up because the window has ended.
    """
    return _driven("finalize", driver, _final, int(gives_up))


def finish(
    driver: DriverToken,
    status: LastStatus,
    *,
    line_errors: bytes,
    parts_name: str,
    keep_s: int,
    ttl_s: float,
    notice: bytes,
    created: Mapping[str, tuple[StoredFile, str]],
) -> ScriptCall[bool]:
    """End a batch: its record lives for `keep_s` seconds more, its parts are deleted.

    `created` maps `output_file_id` and `error_file_id` to a file and its name in the storage;
    the files' records live for `ttl_s` seconds. `line_errors` is JSON, or empty; so is `notice`,
    `relay.webhooks.notices.Notice` for the outbox. False, too, if there are rows without an answer
    and the status is not `failed`.
    """
    keys = [
        redis_keys.STORED, redis_keys.files(driver.tenant), redis_keys.FILE_SIZES,
        redis_keys.FILE_BYTES, redis_keys.OUTBOX,
    ]  # fmt: skip
    args: list[Argument] = [
        driver.batch_id, status, line_errors, parts_name, keep_s, ttl_s, notice,
    ]  # fmt: skip
    for field, (file, name) in created.items():
        keys.append(redis_keys.file(file.id))
        args += [field, file.id, name, encode(file), file.counted_bytes]
    own = _keys(driver.batch_id, driver.tenant)
    return ScriptCall(load("batches/finish"), [*own, *keys], [driver.token, *args], bool)


def _driven(
    name: str, driver: DriverToken, read: Callable[[Any], T], *args: Argument
) -> ScriptCall[T]:
    keys = _keys(driver.batch_id, driver.tenant)
    return ScriptCall(load(f"batches/{name}"), keys, [driver.token, *args], read)


def _started(reply: Any) -> bool | None:
    return None if reply is None else bool(reply)


def _keys(batch_id: str, tenant: str) -> list[str]:
    """The first six keys of every script here: relay/lua/shared/batch.lua names them."""
    return [
        redis_keys.batch(batch_id),
        redis_keys.batch_rows(batch_id),
        redis_keys.batch_parts(batch_id),
        redis_keys.BATCHES,
        redis_keys.batches(tenant),
        redis_keys.live_batches(tenant),
    ]


def _hash(reply: Any) -> Hash | None:
    return pairs(reply) if reply else None


def _pulse(reply: Any) -> tuple[str, float, int] | None:
    return (reply[0].decode(errors="replace"), float(reply[1]), int(reply[2])) if reply else None


def _cancelled(reply: Any) -> tuple[bool, Hash]:
    return bool(reply[0]), pairs(reply[1:])


def _final(reply: Any) -> tuple[str, bool] | None:
    return (reply[0].decode(errors="replace"), bool(reply[1])) if reply else None
