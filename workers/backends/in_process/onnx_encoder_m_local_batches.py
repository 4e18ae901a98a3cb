"""Which texts run together: neighbours in length, so that little is computed for padding.

Invariant: every text is in exactly one batch, and a batch of more than one text is never wider
than `max_tokens` with its padding.
"""

from collections.abc import Iterator, Sequence

Batch = list[int]
"""Indexes of texts."""


def batches(lengths: Sequence[int], max_tokens: int, window: int) -> Iterator[Batch]:
    """Indexes of `lengths` (tokens of each text), batch by batch.

    Texts are sorted by length within windows of `window` neighbours only, so that the first rows
    are ready long before the last. The longest come first: memory grows once.
    """
    for start in range(0, len(lengths), window):
        end = min(start + window, len(lengths))
        longest_first = sorted(range(start, end), key=lengths.__getitem__, reverse=True)
        batch: Batch = []
        for at in longest_first:
            # The first is the longest, and all are padded to it.
            if batch and lengths[batch[0]] * (len(batch) + 1) > max_tokens:
                yield batch
                batch = []
            batch.append(at)
        yield batch
