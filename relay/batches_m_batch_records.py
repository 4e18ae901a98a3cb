"""A batch's record as Redis holds it: fields of a hash, and back. Pure."""

import json
from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter

from contract.batches import Batch, Counts, LineError, NewBatch
from contract.events import COUNTS, Usage
from contract.tenants import Tenant
from contract.wire import encode
from relay.records import Hash

_JSON: Final = ("metadata", "tenant", "errors")
_COUNTS: Final = ("total", "completed", "failed")
_USED: Final = COUNTS
_OURS: Final = frozenset(
    {
        "driver",
        "issued",
        "last_part",
        "gives_up",
        "pending_completed",
        "pending_failed",
        *_COUNTS,
        *_USED,
    }
)
"""Fields that are the driver's, or that `Batch` has elsewhere."""
_line_errors: Final = TypeAdapter(tuple[LineError, ...])


def to_fields(new: NewBatch, tenant: Tenant, batch_id: str) -> dict[str, str | bytes]:
    """The fields of a new batch's hash; its times and its status are the script's to say."""
    fields: dict[str, str | bytes] = {
        name: str(value) for name, value in new if name not in _JSON and value is not None
    }
    fields |= {"id": batch_id, "metadata": json.dumps(new.metadata), "tenant": encode(tenant)}
    return fields


def batch_of(fields: Hash) -> Batch:
    """Read what `to_fields` wrote and the scripts have changed since."""
    text: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
    for name in _JSON:
        if name in text:
            text[name] = json.loads(text[name])
    pending = {name: int(text.get(f"pending_{name}", 0)) for name in _COUNTS}
    counts = {name: int(text.get(name, 0)) + pending[name] for name in _COUNTS}
    used = {name: int(text.get(name, 0)) for name in _USED}
    known = {name: value for name, value in text.items() if name not in _OURS}
    whole = {**known, "counts": Counts(**counts), "usage": Usage(**used)}
    return Batch.model_validate(whole, extra="ignore")


def line_errors_json(errors: Sequence[LineError]) -> bytes:
    """What is wrong with a file, as the hash has it; empty if nothing is."""
    return _line_errors.dump_json(tuple(errors)) if errors else b""
