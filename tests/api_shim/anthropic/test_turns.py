"""Anthropic's blocks become the contract's messages, and nothing of them is lost unsaid."""

import base64
from typing import Any

import pytest

from api_shim.anthropic.message_body import TurnBody
from api_shim.anthropic.signatures import facts_in, sign
from api_shim.anthropic.turns import TurnReader, Turns, joined
from api_shim.http.problems import Refusal
from contract.chat import DETAILS, ImagePart, Message, TextPart, ToolCall

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n____").decode()
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "box"}}


def read(*turns: dict[str, Any], system: Any = None) -> Turns:
    blocks = TurnBody.model_validate({"role": "system", "content": system or ""}).content
    return TurnReader().read(blocks, [TurnBody.model_validate(turn) for turn in turns])


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def test_system_and_turns_of_one_role_are_joined() -> None:
    found = read(
        {"role": "user", "content": "a"},
        user(text("b"), text("c")),
        assistant(text("d")),
        assistant(text("e")),
        system=[text("x-anthropic-billing-header: cc=1;"), text("Be brief."), text("Be kind.")],
    )

    assert found.messages == (
        Message(role="system", content="Be brief.\nBe kind."),
        Message(role="user", content="a\nb\nc"),
        Message(role="assistant", content="de"),
    )
    assert found.left_out == ("x-anthropic-billing-header",)


@pytest.mark.parametrize("content", ["a", [text("a")]], ids=["text", "blocks"])
def test_many_messages_of_one_role_are_joined_once(
    content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = []

    def counted(parts: Any) -> Any:
        at_once.append(len(parts))
        return joined(parts)

    monkeypatch.setattr("api_shim.anthropic.turns.joined", counted)
    turns = [{"role": role, "content": content} for role in ("user", "assistant")]
    found = read(*([turns[0]] * 100), *([turns[1]] * 100))

    assert at_once == [100]
    assert found.messages == (
        Message(role="user", content="\n".join("a" * 100)),
        Message(role="assistant", content="a" * 100),
    )


def test_a_system_message_is_folded_where_it_stands() -> None:
    found = read(
        {"role": "system", "content": "first"},
        {"role": "user", "content": "hello"},
        {"role": "system", "content": [text("later")]},
        system="zeroth",
    )

    assert found.messages == (
        Message(role="system", content="zeroth\nfirst"),
        Message(role="user", content="hello\n<system>\nlater\n</system>"),
    )


def test_results_of_tools_are_messages_of_their_own() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    second = {**USE, "id": "t2"}
    found = read(
        user(text("go")),
        assistant(text("I look."), USE, second),
        user(
            {"type": "tool_result", "tool_use_id": "t1", "content": [text("a"), image]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True},
            text("and now"),
        ),
    )
    _, said, one, two, last = found.messages

    calls = tuple(ToolCall(id=id, name="look", arguments='{"at":"box"}') for id in ("t1", "t2"))
    assert (said.content, said.tool_calls) == ("I look.", calls)
    assert (one.role, one.tool_call_id, one.tool_name) == ("tool", "t1", "look")
    assert one.content == (TextPart(text="a"), ImagePart(image=f"data:image/png;base64,{PNG}"))
    assert (two.content, last) == ("Error:\nno", Message(role="user", content="and now"))


def test_thinking_and_its_signatures_make_the_round_trip() -> None:
    mine = sign({"message": {"google": 1}, "calls": {"t1": {"google": 2}}, "thinking": "hidden"})
    found = read(
        user(text("go")),
        assistant(
            {"type": "thinking", "thinking": "", "signature": mine},
            {"type": "thinking", "thinking": " seen", "signature": "EqQB"},
            {"type": "redacted_thinking", "data": "AAAA"},
            USE,
        ),
    )
    message = found.messages[-1]

    assert message.thinking == "hidden seen"
    assert message.tool_calls[0].provider_meta == {"google": 2}
    assert message.provider_meta
    assert message.provider_meta["google"] == 1
    assert [each["type"] for each in message.provider_meta[DETAILS]] == [
        "reasoning.text",
        "reasoning.encrypted",
    ]


@pytest.mark.parametrize("signature", ["fleet.!!", "fleet.bnVsbA==", "fleet.", ""])
def test_a_forged_signature_holds_no_facts(signature: str) -> None:
    assert facts_in(signature) is None


def test_documents_of_text_are_text_and_others_are_refused() -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "body"}
    blocks = {"type": "content", "content": [text("part")]}
    search = {"type": "search_result", "title": "T", "source": "S", "content": [text("found")]}
    found = read(
        user(
            {"type": "document", "title": "title", "context": "why", "source": plain},
            {"type": "document", "source": blocks},
            search,
        )
    )

    assert found.messages[0].content == "title\nwhy\nbody\npart\nT\nS\nfound"
    for source in ({"type": "base64", "data": "JVBE"}, {"type": "url", "url": "http://x/a.pdf"}):
        with pytest.raises(Refusal, match=r"messages\.0\.content\.0\.source: .*plain text"):
            read(user({"type": "document", "source": source}))


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "0.source"),
        (user({"type": "image", "source": {"type": "base64", "data": "!"}}), "0.source"),
        (user({"type": "tool_result", "content": "x"}), "0.tool_use_id"),
        (user({"type": "container_upload", "file_id": "f"}), "0.type"),
        (user(USE), "0.type"),
        (assistant({"type": "tool_use", "input": {}}), "0"),
    ],
)
def test_a_refusal_names_the_block(turn: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(turn)

    (error,) = refused.value.extra["errors"]
    assert error.field == f"messages.0.content.{field}"


def test_blocks_of_tools_that_run_at_anthropic_are_named() -> None:
    found = read(
        user(text("go")),
        assistant(text("x"), {"type": "server_tool_use", "id": "s", "name": "web_search"}),
        user({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, text("y")),
    )

    assert [message.text for message in found.messages] == ["go", "x", "y"]
    assert found.left_out == (
        "messages[].content[server_tool_use]",
        "messages[].content[web_search_tool_result]",
    )


def test_a_conversation_adds_and_withdraws_tools() -> None:
    reference = {"type": "tool_reference", "tool_name": "deep"}
    definition = {"name": "made", "input_schema": {"type": "object"}}
    found = read(
        user(text("go")),
        assistant(USE),
        user({"type": "tool_result", "tool_use_id": "t1", "content": [reference]}),
        {
            "role": "system",
            "content": [
                {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "old"}},
                {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "new"}},
                {
                    "type": "tool_addition",
                    "tool": {"type": "tool_definition", "definition": definition},
                },
            ],
        },
    )

    assert found.tools.added == {"deep", "new", "made"}
    assert (found.tools.removed, found.tools.defined[0].name) == ({"old"}, "made")
    assert found.messages[-1].content == "The tool deep is available now."
