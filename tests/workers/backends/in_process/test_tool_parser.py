"""Generated text is parsed into thinking, calls and content, however it is split."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from contract.events import Delta
from workers.backends.in_process.tool_parser import ToolParser

THOUGHTFUL = "<think>\nhm, <b>\n</think>\n\nIt is 3 < 4."
CALL = '<tool_call>{"name": "get_time", "arguments": {"city": "Oslo"}}</tool_call>'


def parsed(
    *pieces: str, thinks: bool = False, skips_thinking: bool = False, **how: bool
) -> list[Delta]:
    parser = ToolParser(**how)
    parser.begin(thinks=thinks, skips_thinking=skips_thinking)
    return [*(delta for piece in pieces for delta in parser.add(piece)), *parser.end()]


def joined(deltas: list[Delta]) -> tuple[str, str]:
    """The thinking and the content."""
    return (
        "".join(delta.thinking or "" for delta in deltas),
        "".join(delta.content or "" for delta in deltas),
    )


def calls(deltas: list[Delta]) -> list[tuple[str | None, str | None]]:
    return [(call.name, call.arguments) for delta in deltas for call in delta.tool_calls or ()]


def test_thoughts_are_no_answer() -> None:
    assert joined(parsed(THOUGHTFUL)) == ("hm, <b>\n", "It is 3 < 4.")


def test_thoughts_that_the_prompt_opened_are_thoughts() -> None:
    assert joined(parsed("hm</think>yes", thinks=True)) == ("hm", "yes")


def test_a_tag_after_the_first_word_is_a_word() -> None:
    assert joined(parsed("Write <think> so.")) == ("", "Write <think> so.")


def test_an_answer_that_began_has_no_thoughts() -> None:
    assert joined(parsed("\n<think>", skips_thinking=True)) == ("", "\n<think>")


def test_plain_text_is_unchanged() -> None:
    assert [delta.content for delta in parsed(" a", " b")] == [" a", " b"]


def test_what_looks_like_a_tag_to_the_end_is_text() -> None:
    assert joined(parsed("<thin")) == ("", "<thin")
    assert joined(parsed("no <tool_", calls=True)) == ("", "no <tool_")


def test_calls_are_parsed_from_tags_in_the_text() -> None:
    deltas = parsed(f"I look.{CALL}\n{CALL}", calls=True)

    assert joined(deltas)[1] == "I look."
    assert calls(deltas) == [("get_time", '{"city":"Oslo"}')] * 2


def test_without_tools_a_tag_is_text() -> None:
    assert joined(parsed(CALL)) == ("", CALL)


def test_an_invalid_call_is_text() -> None:
    deltas = parsed("<tool_call>what?</tool_call>", calls=True)

    assert calls(deltas) == []
    assert "what?" in joined(deltas)[1]


def test_a_whole_answer_may_be_a_call() -> None:
    assert calls(parsed('{"name": "a", ', '"arguments": {}}', is_call=True)) == [("a", "{}")]


@given(st.lists(st.integers(0, len(THOUGHTFUL + CALL)), max_size=30))
def test_splitting_the_text_does_not_change_the_result(cuts: list[int]) -> None:
    text = THOUGHTFUL + CALL
    ends = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(ends)]
    deltas = parsed(*pieces, calls=True)

    assert joined(deltas) == joined(parsed(text, calls=True))
    assert calls(deltas) == [("get_time", '{"city":"Oslo"}')]


@given(st.lists(st.text("<>/thinktol_c{} \n")))
def test_any_text_can_be_parsed(pieces: list[str]) -> None:
    assert isinstance(parsed(*pieces, calls=True), list)
