"""A script's text is its file and what it includes, once each."""

import pytest

from relay.scripts.loader import load, source


def test_an_include_is_replaced_by_its_file() -> None:
    text = load("files/due")

    assert source("shared/time.lua") in text
    assert "-- include" not in text


def test_what_is_included_twice_is_there_once() -> None:
    text = load("batches/finish")  # includes shared/file.lua, which includes shared/time.lua

    assert text.count("redis.call('TIME')") == 1
    assert text.count("local function list(") == 1


def test_the_flags_of_a_script_stay_in_its_first_line() -> None:
    assert load("batches/take").startswith("#!lua flags=allow-oom\n")


def test_a_script_that_does_not_exist_is_refused() -> None:
    with pytest.raises(FileNotFoundError):
        load("batches/none")
