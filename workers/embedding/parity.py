"""Whether a model's vectors are the same alone and together: the texts to ask, and the measure.

Some servers answer other vectors when texts come together (ollama #6262): padding that is not
masked, rows that are mixed up. No two ways to compute are equal to the bit, so it is a tolerance.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

TEXTS: Final = (
    "queue",
    "A worker takes the next job.",
    "Wer zu spät kommt, hört trotzdem jedes Wort: 列に並ぶ.",
    "In the morning the post office opens at eight, and whoever waits is served in order. " * 2,
    "0x1F, 3.14159 & <b>42</b>",
    "The river rises in the hills, runs past the mill and the old bridge, and ends in the sea. "
    * 4,
)
"""From one word to some ninety tokens: together, all but one are padded."""
CROWDS: Final = (TEXTS, TEXTS[::-1], (*TEXTS, *TEXTS[::-1]) * 2)
"""What to send together. While it does other work, a server may take the texts of a request one by
one: a llama-server whose means are wrong in company looked right in 6 of 40 comparisons of six
texts, and in none of 40 of four times as many."""
LEAST_COSINE: Final = 0.999
"""Half precision in another order of summing stays above; a neighbour's vector is far below."""
MOST_STRETCH: Final = 0.01
"""How far the two lengths may differ, as a part of the longer."""


class Likeness(NamedTuple):
    """The worst pair of vectors."""

    cosine: float
    stretch: float
    """Difference of the two lengths as a part of the longer."""

    @property
    def is_same(self) -> bool:
        """Whether both are within the tolerance; a number that is none is not."""
        return self.cosine >= LEAST_COSINE and self.stretch <= MOST_STRETCH


def likeness(alone: Sequence[Sequence[float]], together: Sequence[Sequence[float]]) -> Likeness:
    """Compare row by row; rows of other widths, or another number of rows, are not alike at all."""
    if [len(row) for row in alone] != [len(row) for row in together]:
        return Likeness(0.0, 1.0)
    pairs = [_pair(one, other) for one, other in zip(alone, together, strict=True)]
    # min and max pass over nan, or do not, depending on its place.
    if any(math.isnan(value) for pair in pairs for value in pair):
        return Likeness(math.nan, math.nan)
    return Likeness(min(pair.cosine for pair in pairs), max(pair.stretch for pair in pairs))


def _pair(one: Sequence[float], other: Sequence[float]) -> Likeness:
    lengths = math.hypot(*one), math.hypot(*other)
    if not all(lengths):
        return Likeness(1.0, 0.0) if lengths[0] == lengths[1] else Likeness(0.0, 1.0)
    cosine = sum(a * b for a, b in zip(one, other, strict=True)) / (lengths[0] * lengths[1])
    return Likeness(cosine, abs(lengths[0] - lengths[1]) / max(lengths))
