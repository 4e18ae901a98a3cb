"""Lines of an input file, however its pieces are cut."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from support.batches import echo, jsonl

from api_shim.batch.lines import MOST_ERRORS, InputLine, InputValidator, RowReader, split_lines

ENDPOINT = "/v1/embeddings"
GOOD = b'{"custom_id":"%d","method":"POST","url":"/v1/embeddings","body":{}}'


async def pieces(data: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def cut(data: bytes, size: int, longest: int = 100) -> list[InputLine]:
    return [line async for block in split_lines(pieces(data, size), longest) for line in block]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_lines_are_the_same_however_pieces_are_cut(size: int) -> None:
    data = b"one\n\n  \ntwo\r\n" + b"x" * 500 + b"\nthree"

    assert await cut(data, size) == [
        (1, 0, b"one"), (4, 1, b"two\r"), (5, 2, None), (6, 3, b"three"),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 8, 1000])
async def test_a_line_that_is_too_long_at_the_end_is_one(size: int) -> None:
    assert await cut(b"one\n" + b"x" * 500, size) == [(1, 0, b"one"), (2, 1, None)]


async def test_a_hundred_errors_are_enough() -> None:
    check = InputValidator(ENDPOINT, max_rows=5000, max_line_bytes=100)
    for block in [await cut(b"no\n" * 3000, 300)]:
        check.add(block)

    assert len(check.all_errors()) == MOST_ERRORS
    assert check.should_stop


async def test_a_source_leaves_out_what_is_done_and_takes_rows_back() -> None:
    data = b"\n".join(GOOD % n for n in range(6))
    source = RowReader(split_lines(pieces(data, 50), 100), lambda row: row in {0, 3}, 100)
    first = await source.take(2)
    source.put_back(first[:1])
    rest = await source.take(10)

    assert [each.number for each in first] == [1, 2]
    assert [each.number for each in rest] == [4, 5, 1]
    assert source.is_exhausted


@pytest.mark.parametrize(("has_one_model", "codes"), [(True, ["model_mismatch"]), (False, [])])
def test_models_are_mixed_unless_only_one_is_wanted(has_one_model: Any, codes: list[str]) -> None:
    rows = [echo(0, "a"), echo(1, "a"), echo(2, "b")]
    found = InputValidator(
        "/v1/chat/completions", max_rows=9, max_line_bytes=999, has_one_model=has_one_model
    )
    texts = jsonl(rows).splitlines()
    found.add([InputLine(at + 1, at, text) for at, text in enumerate(texts)])

    assert [error.code for error in found.all_errors()] == codes
    assert [error.line for error in found.all_errors()] == [3][: len(codes)]
