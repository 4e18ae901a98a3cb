"""An answer ends before its stop word, however the word is cut."""

from hypothesis import given
from hypothesis import strategies as st

from workers.backends.in_process.stops import Stops


def streamed(pieces: list[str], *words: str) -> tuple[str, str | None]:
    stops = Stops(words)
    text = "".join(stops.add(piece) for piece in pieces)
    return text + stops.rest(), stops.met


def test_no_part_of_a_stop_word_is_sent() -> None:
    assert streamed(["one EN", "D two"], "END") == ("one ", "END")


def test_text_that_only_begins_like_a_stop_word_is_sent() -> None:
    assert streamed(["one EN", "OUGH"], "END") == ("one ENOUGH", None)
    assert streamed(["one EN"], "END") == ("one EN", None)


def test_the_first_of_two_wins() -> None:
    assert streamed(["a b c"], "c", "b") == ("a ", "b")


@given(st.lists(st.text("ab", max_size=4)), st.text("ab", min_size=1, max_size=4))
def test_cuts_change_nothing(pieces: list[str], word: str) -> None:
    whole = "".join(pieces)

    assert streamed(pieces, word) == (
        whole.partition(word)[0],
        word if word in whole else None,
    )
