"""How much goes into one request, and which of the texts that wait: pure.

Texts of like length go together, because many servers pad all to the longest. The first in order
is always among them, so that no text waits for company of its length.
"""

from collections.abc import Collection
from dataclasses import dataclass

from workers.embedding.wants import Want


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds of one request; a single text may be longer than `tokens`."""

    texts: int
    tokens: int
    """Texts times the tokens of the longest: what a server that pads computes."""


def chosen(
    waiting: Collection[Want], budget: Budget, *, mixes: bool, suspects: Collection[object] = ()
) -> list[Want]:
    """What goes into the next request; `waiting` is not empty.

    Without `mixes` only texts of one job. What is under suspicion of breaking a request goes alone.
    """
    head = min(waiting, key=lambda want: (want.rank, want.since))
    if head.text in suspects:
        return [head]
    company = [
        want
        for want in waiting
        if want is not head
        and (mixes or not want.orders.keys().isdisjoint(head.orders))
        and want.text not in suspects
    ]
    size = head.tokens.bit_length()
    company.sort(key=lambda want: (abs(want.tokens.bit_length() - size), want.rank))
    found, longest = [head], head.tokens
    for want in company:
        if len(found) == budget.texts:
            break
        if max(longest, want.tokens) * (len(found) + 1) <= budget.tokens:
            found.append(want)
            longest = max(longest, want.tokens)
    return found
