"""The request of a target: what it forces, what it sets by default, its system prompt."""

from typing import Any

from contract.aliases.parameters import applied, with_target
from contract.chat import ChatRequest, Message, SchemaFormat
from contract.embeddings import EmbedRequest
from contract.requests import AliasTarget, Route

USER, SYSTEM = Message(role="user", content="hi"), Message(role="system", content="be long")


def chat(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest(model="fast", messages=messages or (USER,), **fields)


def target(**fields: Any) -> AliasTarget:
    return AliasTarget(model="m", wait_s=1, **fields)


def test_a_default_is_for_a_field_that_is_left_out_and_a_force_for_any() -> None:
    its = target(default={"temperature": 0.5, "top_k": 3}, force={"think": "off", "max_tokens": 9})
    found = with_target(chat(temperature=1, think="high"), its)

    assert (
        found.model, found.temperature, found.top_k, found.think, found.max_tokens,
    ) == ("m", 1, 3, "off", 9)  # fmt: skip


def test_values_are_read_as_those_of_a_request() -> None:
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    found = with_target(chat(), target(force={"stop": ["a"], "response_format": schema}))

    assert found.stop == ("a",)
    assert isinstance(found.response_format, SchemaFormat)


def test_a_kind_of_request_without_the_field_ignores_it() -> None:
    its = target(force={"temperature": 1, "system": "x", "dimensions": 8})

    assert with_target(EmbedRequest(model="fast", input=("a",)), its) == EmbedRequest(
        model="m", input=("a",), dimensions=8
    )


def test_a_default_system_prompt_is_for_conversations_without_one() -> None:
    its = target(default={"system": "be brief"})

    assert [m.content for m in with_target(chat(), its).messages] == ["be brief", "hi"]
    assert with_target(chat(SYSTEM, USER), its).messages == (SYSTEM, USER)


def test_a_forced_system_prompt_replaces_those_of_the_client() -> None:
    its = target(force={"system": "be brief"})

    assert [m.content for m in with_target(chat(USER, SYSTEM), its).messages] == ["be brief", "hi"]
    assert with_target(ChatRequest(model="fast", prompt="raw"), its).messages == ()


def test_each_target_starts_from_what_the_client_sent() -> None:
    route = Route(
        alias="fast",
        targets=(target(force={"seed": 1, "system": "a"}), target(default={"temperature": 2})),
    )
    request = chat(route=route)

    assert (applied(request).seed, applied(request).temperature) == (1, None)
    assert (applied(request, 1).seed, applied(request, 1).temperature) == (None, 2)
    assert applied(request, 1).messages == (USER,)
    assert applied(request, 1).route is None


def test_a_parameter_of_a_newer_version_is_left_out() -> None:
    found = with_target(chat(), target(force={"think": "telepathy", "aura": 1, "seed": 3}))

    assert (found.think, found.seed) == ("auto", 3)
