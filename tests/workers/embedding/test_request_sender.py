"""Which texts go into one request: the first in order, its like, and no more than the bounds."""

from hypothesis import given
from hypothesis import strategies as st

from workers.embedding.options import PackingOptions
from workers.embedding.request_sender import Budget, next_batch
from workers.embedding.text_queue import EmbedJob, QueuedText, TextQueue

LENGTHS = st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=40), min_size=1, max_size=6)


def queued(jobs: list[list[int]]) -> TextQueue:
    """Jobs with texts of these many tokens."""
    queue = TextQueue(PackingOptions("m"))
    for number, lengths in enumerate(jobs):
        job = EmbedJob([f"{number}-{at}-".ljust(4 * n - 4, "x") for at, n in enumerate(lengths)])
        for _ in lengths:
            queue.add(job, shares=True, now=0.0)
    return queue


def drained(queue: TextQueue, budget: Budget, *, mixes: bool = True) -> list[list[QueuedText]]:
    packs = []
    while queue.waiting:
        batch = next_batch(queue.waiting.values(), budget, mixes=mixes)
        queue.pack(batch)
        packs.append(batch)
    return packs


@given(LENGTHS, st.integers(1, 30), st.integers(1, 4000))
def test_every_text_is_sent_once_within_the_bounds(
    jobs: list[list[int]], texts: int, tokens: int
) -> None:
    packs = drained(queued(jobs), Budget(texts, tokens))

    assert sum(map(len, packs)) == sum(map(len, jobs))
    for pack in packs:
        longest = max(text.tokens for text in pack)
        assert len(pack) <= texts
        assert len(pack) == 1 or longest * len(pack) <= tokens


@given(LENGTHS, st.integers(1, 30))
def test_the_first_in_order_is_always_among_them(jobs: list[list[int]], texts: int) -> None:
    queue = queued(jobs)
    while queue.waiting:
        first = min(text.rank for text in queue.waiting.values())
        batch = next_batch(queue.waiting.values(), Budget(texts, 2000), mixes=True)
        queue.pack(batch)

        assert min(text.rank for text in batch) == first


@given(LENGTHS)
def test_without_mixing_each_request_is_of_one_job(jobs: list[list[int]]) -> None:
    for pack in drained(queued(jobs), Budget(16, 4000), mixes=False):
        assert len({job for text in pack for job in text.jobs}) == 1


def test_texts_of_similar_length_are_sent_together() -> None:
    queue = queued([[10, 500] * 20])
    packs = drained(queue, Budget(20, 100_000))

    assert [len({text.tokens > 100 for text in pack}) for pack in packs] == [1, 1]


def test_a_new_job_is_not_behind_all_texts_of_an_old_one() -> None:
    queue = queued([[10] * 100])
    budget = Budget(10, 100_000)
    for _ in range(3):
        queue.pack(next_batch(queue.waiting.values(), budget, mixes=True))
    late = EmbedJob(["late"])
    queue.add(late, shares=True, now=1.0)

    assert late in next_batch(queue.waiting.values(), budget, mixes=True)[0].jobs
