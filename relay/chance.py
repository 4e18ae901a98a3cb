"""Random numbers that guard nothing: pauses that differ between processes, and ids that are unique.

They are not those of Python's `random`, which a program may seed: then the ids of all would be the
same, and its own numbers would depend on what is drawn here. A child of a fork gets a new seed.
"""

import os
from random import Random
from typing import Final

DICE: Final = Random()  # noqa: S311 - it guards nothing
os.register_at_fork(after_in_child=DICE.seed)


def unique_id() -> str:
    """32 hexadecimal digits that are no secret: uuid4 asks the kernel, and costs 2.5 us."""
    return f"{DICE.getrandbits(128):032x}"
