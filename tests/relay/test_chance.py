"""Numbers that guard nothing depend on no seed, and differ between the processes of a fork."""

import os
import random

from relay.chance import DICE, unique_id
from relay.tickets import ticket


def test_a_program_that_seeds_random_neither_repeats_ids_nor_sees_them_drawn() -> None:
    before = random.getstate()
    try:
        drawn = []
        for _ in range(2):
            random.seed(0)
            seeded = random.getstate()
            drawn += [unique_id(), unique_id(), ticket("box.chat"), str(DICE.uniform(0, 1))]

            assert random.getstate() == seeded
    finally:
        random.setstate(before)

    assert len(set(drawn)) == len(drawn)


def test_a_forked_process_draws_other_numbers() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, unique_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    drawn = os.read(reading, 32).decode()
    os.close(reading)
    os.close(writing)

    assert len(drawn) == 32
    assert drawn != unique_id()
