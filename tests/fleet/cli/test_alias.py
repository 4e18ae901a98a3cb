"""`fleet alias`: set, listed, shown, used and removed."""

import json

import pytest
from support.up import Command


def test_an_alias_is_set_used_and_removed(fleet: Command) -> None:
    made = fleet(
        "alias", "set", "quick", "scripted-echo@scripted", "--fallback", "scripted-story",
        "--default", "temperature=0.2", "--force", "num_ctx=4096", "--system", "Be brief.",
        "--wait", "5",
    )  # fmt: skip
    listed = [json.loads(line) for line in fleet("alias", "list", "--json").stdout.splitlines()]
    said = fleet("chat", "one two", "-m", "quick")
    shown = json.loads(fleet("alias", "show", "quick", "--json").stdout)
    removed = fleet("alias", "remove", "quick")

    assert made.returncode == 0, made.stderr
    assert [(each["model"], each.get("backend")) for each in shown["targets"]] == [
        ("scripted-echo", "scripted"),
        ("scripted-story", None),
    ]
    assert shown["alias"]["default"] == {"temperature": 0.2, "system": "Be brief."}
    assert shown["alias"]["force"] == {"context_length": 4096}
    assert [each["name"] for each in listed] == ["quick"]
    assert said.stdout.strip() == "one two"
    assert removed.returncode == 0
    assert fleet("alias", "show", "quick").returncode == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a b", "m"), "visible ASCII"),
        (("a", "m", "--force", "temperature=9"), "temperature"),
        (("a", "m", "--force", "temperature"), "write it as in temperature=0.2"),
        (("a", "m", "--default", "mood=good"), "mood: an alias sets no such field"),
        (("a", "b", "--fallback", "x" * 300), "256"),
    ],
)
def test_a_wrong_alias_is_2_and_says_why(words: tuple[str, ...], said: str, fleet: Command) -> None:
    told = fleet("alias", "set", *words)

    assert told.returncode == 2
    assert said in told.stderr.replace("\n", " ").replace("│", "").replace("  ", " ")
