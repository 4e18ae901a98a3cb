"""What an ended job has used, as it waits for the ledger: written with its last event."""

from typing import Final

from contract.jobs import JobRecord
from contract.usage import ModelPrice, UsageCounts
from contract.wire import WireModel, decode, encode

_NAME_LENGTH: Final = 200
"""A longer name of a model is cut: it is the name of a row in the ledger."""


class EndedJobUsage(WireModel):
    """An ended job, and what it used as far as its worker knows."""

    tenant: str
    backend: str
    kind: str
    model: str | None = None
    status: str
    attempts: int = 1
    """0: no worker had started it."""
    price: str | None = None
    reserved: bool = False
    """Whether something is reserved for it."""
    counts: tuple[int, ...] | None = None
    """`contract.usage.UsageCounts` of the last attempt; None: all is read from the log."""

    @property
    def needs_log(self) -> bool:
        """Whether its log has to be read: there were several attempts, or no worker ended it."""
        return self.attempts > 1 or (self.attempts == 1 and self.counts is None)

    @property
    def field(self) -> tuple[str, str, str]:
        """The names of its row: backend, kind, model."""
        return self.backend, self.kind, (self.model or "")[:_NAME_LENGTH]

    @property
    def _own(self) -> UsageCounts:
        """What its worker has counted; a newer version's may have numbers that are unknown here."""
        if self.counts is None:
            return UsageCounts(estimated=1)
        return UsageCounts(*self.counts[: len(UsageCounts._fields)])

    def settled(self, measured: UsageCounts | None) -> UsageCounts:
        """All that it used, with outcome and cost; `measured` is from its log, where it was read.

        Nothing for a job that was never started. Raises ValidationError for an invalid price.
        """
        if not self.attempts:
            return UsageCounts()
        used = measured or self._own
        price = ModelPrice() if self.price is None else decode(ModelPrice, self.price)
        return used._replace(
            requests=1,
            failed=int(self.status == "failed"),
            cancelled=int(self.status == "cancelled"),
            cost_nano=price.cost_nano(used),
        )


def usage_of(record: JobRecord, status: str, counts: UsageCounts) -> bytes:
    """An entry for the ledger, of a job that its worker has ended with this `status`."""
    entry = EndedJobUsage(
        tenant=record.tenant,
        backend=record.backend,
        kind=record.kind,
        model=record.model,
        status=status,
        attempts=record.attempt,
        price=record.price,
        reserved=record.reserved_tokens is not None,
        counts=counts,
    )
    return encode(entry)
