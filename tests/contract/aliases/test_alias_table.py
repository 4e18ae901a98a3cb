"""What a model's name means, and the targets that an alias stands for."""

from collections.abc import Mapping
from typing import Any

import pytest

from contract.aliases.alias_table import Alias, AliasTable, demand_aliases
from contract.errors import InvalidRequest


def table(**aliases: Any) -> AliasTable:
    return AliasTable(parsed(aliases))


def parsed(aliases: Mapping[str, Any]) -> dict[str, Alias]:
    return {name: Alias.model_validate(value) for name, value in aliases.items()}


def models(found: AliasTable, name: str) -> list[str]:
    return [target.model for target in found.route(name, name).targets]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("fast", "fast"),
        ("fast:latest", "fast"),
        ("gpt-oss:20b", None),  # a model that is there
        ("gpt-4o", "gpt-*"),
        ("gpt-4o-mini", "gpt-*-mini"),
        ("claude", None),
        ("g" * 300, None),
        ("gpt-", "gpt-*"),
        ("org/gpt-4", None),
    ],
)
def test_an_alias_goes_before_a_model_and_a_model_before_a_pattern(
    asked: str, meant: str | None
) -> None:
    found = AliasTable(parsed({"fast": "m", "gpt-*": "m", "gpt-*-mini": "n", "claude-*": "m"}))

    assert found.find(asked, lambda name: name in {"fast", "gpt-oss:20b"}) == meant


def test_fallbacks_have_the_parameters_of_their_alias_and_their_own_over_them() -> None:
    found = table(
        fast={
            "model": "big", "wait_s": 5,
            "default": {"temperature": 0.1}, "force": {"num_ctx": 1024},
            "fallbacks": ["small", {"model": "cloud", "wait_s": 9, "force": {"num_ctx": 99}}],
        }
    )  # fmt: skip
    targets = found.route("fast", "fast").targets

    assert [target.wait_s for target in targets] == [5, 5, 9]
    assert [target.force["context_length"] for target in targets] == [1024, 1024, 99]
    assert [target.default for target in targets] == [{"temperature": 0.1}] * 3


def test_an_alias_that_another_one_names_is_replaced_by_its_targets() -> None:
    found = table(
        outer={"model": "inner", "backend": "box", "force": {"top_k": 2}},
        inner={"model": "a", "force": {"top_k": 1, "seed": 7}, "fallbacks": ["b", "a"]},
    )
    targets = found.route("outer", "outer").targets

    assert [target.model for target in targets] == ["a", "b"]
    assert [target.force for target in targets] == [{"top_k": 2, "seed": 7}] * 2
    assert [target.backend for target in targets] == ["box", "box"]


def test_two_models_may_be_each_others_fallback() -> None:
    found = table(a={"model": "a", "fallbacks": ["b"]}, b={"model": "b", "fallbacks": ["a"]})
    found.check()

    assert (models(found, "a"), models(found, "b")) == (["a", "b"], ["b", "a"])


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ({"a": "b", "b": "a"}, "in a circle: a -> b -> a"),
        ({"a": "x", "b": {"model": "y", "fallbacks": ["c"]}, "c": "b"}, "b -> c -> b"),
        ({f"a{n}": f"a{n + 1}" for n in range(12)}, "more than 8 deep"),
        ({"a": {"model": "m", "fallbacks": ["b"]}, "b": {"model": "n0", "fallbacks": [
            f"n{n}" for n in range(1, 8)]}}, "more than 8 targets"),
        ({"has space": "m"}, "visible ASCII"),
        ({"*a*b*": "m"}, "at most 2 wildcards"),
        ({"": "m"}, "visible ASCII"),
    ],
)  # fmt: skip
def test_aliases_that_cannot_be_used_are_refused(aliases: Mapping[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words.replace("*", r"\*")):
        demand_aliases(parsed(aliases))


def test_names_that_branch_deeply_cost_no_more_than_others() -> None:
    deep = {f"a{n}": {"model": f"a{n + 1}", "fallbacks": [f"a{n + 1}"] * 7} for n in range(8)}

    with pytest.raises(InvalidRequest):
        demand_aliases(parsed(deep))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"temperature": 9}, "temperature: Input should be less than or equal to 5"),
        ({"messages": []}, "messages: an alias sets no such field"),
        ({"priority": "batch"}, "priority: an alias sets no such field"),
        ({"num_ctx": 1, "context_length": 2}, "context_length is the same parameter"),
        ({"system": ""}, "system: give a text"),
        ({"seed": None}, "seed: it has no value"),
        ({"think": "much"}, "think: Input should be"),
    ],
)
def test_parameters_are_checked_when_they_are_set(parameters: dict[str, Any], words: str) -> None:
    for field in ("default", "force"):
        with pytest.raises(ValueError, match=words):
            Alias.model_validate({"model": "m", field: parameters})
