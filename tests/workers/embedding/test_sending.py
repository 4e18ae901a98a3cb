"""Which texts go into one request: the first in order, its like, and no more than the bounds."""

from hypothesis import given
from hypothesis import strategies as st

from workers.embedding.options import PackingOptions
from workers.embedding.sending import Budget, chosen
from workers.embedding.wants import EmbedOrder, Want, WantedTexts

LENGTHS = st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=40), min_size=1, max_size=6)


def lined_up(jobs: list[list[int]]) -> WantedTexts:
    """Jobs with texts of these many tokens, in line."""
    line = WantedTexts(PackingOptions("m"))
    for number, lengths in enumerate(jobs):
        order = EmbedOrder(
            [f"{number}-{at}-".ljust(4 * n - 4, "x") for at, n in enumerate(lengths)]
        )
        for _ in lengths:
            line.offer(order, shares=True, now=0.0)
    return line


def drained(line: WantedTexts, budget: Budget, *, mixes: bool = True) -> list[list[Want]]:
    packs = []
    while line.waiting:
        wants = chosen(line.waiting.values(), budget, mixes=mixes)
        line.send(wants)
        packs.append(wants)
    return packs


@given(LENGTHS, st.integers(1, 30), st.integers(1, 4000))
def test_every_text_goes_out_once_within_the_bounds(
    jobs: list[list[int]], texts: int, tokens: int
) -> None:
    packs = drained(lined_up(jobs), Budget(texts, tokens))

    assert sum(map(len, packs)) == sum(map(len, jobs))
    for pack in packs:
        longest = max(want.tokens for want in pack)
        assert len(pack) <= texts
        assert len(pack) == 1 or longest * len(pack) <= tokens


@given(LENGTHS, st.integers(1, 30))
def test_the_first_in_order_is_always_among_them(jobs: list[list[int]], texts: int) -> None:
    line = lined_up(jobs)
    while line.waiting:
        first = min(want.rank for want in line.waiting.values())
        wants = chosen(line.waiting.values(), Budget(texts, 2000), mixes=True)
        line.send(wants)

        assert min(want.rank for want in wants) == first


@given(LENGTHS)
def test_without_mixing_each_request_is_of_one_job(jobs: list[list[int]]) -> None:
    for pack in drained(lined_up(jobs), Budget(16, 4000), mixes=False):
        assert len({order for want in pack for order in want.orders}) == 1


def test_texts_of_like_length_go_together() -> None:
    line = lined_up([[10, 500] * 20])
    packs = drained(line, Budget(20, 100_000))

    assert [len({want.tokens > 100 for want in pack}) for pack in packs] == [1, 1]


def test_a_new_job_is_not_behind_all_texts_of_an_old_one() -> None:
    line = lined_up([[10] * 100])
    budget = Budget(10, 100_000)
    for _ in range(3):
        line.send(chosen(line.waiting.values(), budget, mixes=True))
    late = EmbedOrder(["late"])
    line.offer(late, shares=True, now=1.0)

    assert late in chosen(line.waiting.values(), budget, mixes=True)[0].orders
