"""Batches by length: nothing lost, nothing doubled, padding bounded."""

from hypothesis import given
from hypothesis import strategies as some

from workers.backends.in_process.onnx_encoder import batches


@given(some.lists(some.integers(1, 600)), some.integers(1, 700), some.integers(1, 64))
def test_every_text_runs_once_and_no_batch_is_too_wide(
    lengths: list[int], max_tokens: int, window: int
) -> None:
    made = list(batches(lengths, max_tokens, window))

    assert sorted(at for batch in made for at in batch) == list(range(len(lengths)))
    for batch in made:
        width = max(lengths[at] for at in batch)
        assert len(batch) == 1 or len(batch) * width <= max_tokens


def test_neighbours_in_length_share_a_batch() -> None:
    assert list(batches([5, 100, 6, 99], 200, 4)) == [[1, 3], [2, 0]]


def test_a_window_ends_before_the_next_begins() -> None:
    assert list(batches([1, 9, 9, 1], 100, 2)) == [[1, 0], [2, 3]]
