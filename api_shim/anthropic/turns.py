"""Anthropic's blocks as the contract's messages. Pure, but that texts of the body are let go.

One turn of a user may hold results of tools beside text: here each result is a message of its own,
before the rest of the turn. Turns of the same role are one turn. A system message in the middle of
a conversation becomes a part of the user's turn, marked as such: the templates of most models allow
a system message at the beginning only, and a changed beginning would empty the backend's cache.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from api_shim.anthropic.message_body import (
    LINE,
    AnthropicToolBody,
    BlockBody,
    Content,
    SourceBody,
    TurnBody,
    invalid_field,
    unsupported_field,
)
from api_shim.anthropic.signatures import facts_in, redacted_detail, thinking_detail
from api_shim.bodies.joined_texts import joined_texts, json_text, taken
from api_shim.http.json_body import let_go
from contract.chat import DETAILS, ImagePart, Message, Part, TextPart, ToolCall

_BILLING: Final = "x-anthropic-billing-header:"
"""Begins a block of Claude Code's system prompt that is no part of the prompt, and differs from one
conversation to the next, so that no two of them would have the beginning in common."""
_ONLY_RESULTS: Final = frozenset({"tool_result"})
_TOOL_CHANGES: Final = frozenset({"tool_addition", "tool_removal"})


class ToolChanges:
    """What a conversation has changed about the tools of its request."""

    def __init__(self) -> None:
        """No change yet."""
        self.added: set[str] = set()
        """Tools that a reference has made available."""
        self.removed: set[str] = set()
        self.defined: list[AnthropicToolBody] = []

    def add(self, name: str | None) -> None:
        """A reference to a tool."""
        self.added.add(name or "")
        self.removed.discard(name or "")

    def apply(self, block: BlockBody) -> None:
        """A block of type `tool_addition` or `tool_removal`."""
        tool = block.tool
        if tool is None:
            return
        if block.type == "tool_removal":
            self.removed.add(tool.name or "")
        elif tool.definition is not None:
            self.defined.append(tool.definition)
            self.add(tool.definition.name)
        else:
            self.add(tool.name)


class Turns(NamedTuple):
    """A conversation as the contract has it."""

    messages: tuple[Message, ...]
    left_out: tuple[str, ...]
    """Names of what no backend can use."""
    tools: ToolChanges


class TurnReader:
    """Reads the turns of one request."""

    def __init__(self, past: Sequence[Message] = ()) -> None:
        """`past`: messages that precede those of the request."""
        self._messages: list[Message] = list(past)
        self._has_past = bool(past)
        # Of the turn that is being read: made one message at its end, because a client may send
        # ten thousand messages of one role.
        self._parts_of_user: list[Part] = []
        self._is_text = True
        self._of_assistant: list[Message] = []
        self._left_out: list[str] = []
        self._tools = ToolChanges()
        self._call_names = {call.id: call.name for each in past for call in each.tool_calls}
        if past and past[-1].role == "user":
            self._add_user(_parts_of(self._messages.pop().content))
        elif past and past[-1].role == "assistant":
            self._of_assistant.append(self._messages.pop())

    def read(self, system: Content | None, turns: list[TurnBody]) -> Turns:
        """All messages; the list is emptied. Raises Refusal for what no backend accepts."""
        first = 0
        if not self._has_past:
            is_over = (at for at, turn in enumerate(turns) if turn.role != "system")
            first = next(is_over, len(turns))
            self._begin(system, turns[:first])
            del turns[:first]
        for at, turn in enumerate(taken(turns), start=first):
            self._add(f"messages.{at}.content", turn)
        self._end_turn()
        if all(message.role == "system" for message in self._messages):
            without = ", ".join(dict.fromkeys(self._left_out))
            why = f", and nothing is understood of {without}" if without else ""
            raise invalid_field("messages", f"at least one message of the user is required{why}")
        return Turns(tuple(self._messages), tuple(dict.fromkeys(self._left_out)), self._tools)

    def _begin(self, system: Content | None, turns: Sequence[TurnBody]) -> None:
        texts = [self._system("system", system)] if system else []
        texts += [
            self._system(f"messages.{at}.content", turn.content) for at, turn in enumerate(turns)
        ]
        prompt = joined_texts([text for text in taken(texts) if text], LINE)
        if prompt:
            self._messages.append(Message(role="system", content=prompt))

    def _add(self, field: str, turn: TurnBody) -> None:
        if turn.role == "system":
            text = self._system(field, turn.content)
            self._add_user([TextPart(text=f"<system>\n{text}\n</system>")] if text else [])
        elif turn.role == "assistant":
            self._add_assistant(field, turn.content)
        elif isinstance(turn.content, str):
            self._add_user([TextPart(text=turn.content)])
            let_go(turn, "content")
        else:
            for at, block in enumerate(turn.content):
                if block.type in _ONLY_RESULTS:
                    self._add_result(f"{field}.{at}", block)
            self._add_user(list(self._parts(field, turn.content, without=_ONLY_RESULTS)))

    def _system(self, field: str, content: Content) -> str:
        if isinstance(content, str):
            return content
        texts: list[str] = []
        for at, block in enumerate(content):
            if block.type in _TOOL_CHANGES:
                self._tools.apply(block)
            elif block.type != "text":
                raise invalid_field(f"{field}.{at}.type", "a system prompt has text blocks only")
            elif (block.text or "").startswith(_BILLING):
                self._left_out.append(_BILLING.removesuffix(":"))
            elif block.text:
                texts.append(block.text)
                let_go(block, "text")
        return joined_texts(texts, LINE)

    def _add_user(self, parts: Sequence[Part]) -> None:
        if not parts:
            return
        if self._of_assistant:
            self._end_turn()
        is_text = all(isinstance(part, TextPart) for part in parts)
        if self._is_text and not is_text and self._parts_of_user:
            self._parts_of_user = _parts_of(joined(self._parts_of_user))
        self._is_text = self._is_text and is_text
        self._parts_of_user += parts

    def _end_turn(self) -> None:
        """Make a message of what the user or the assistant has said in one turn."""
        if self._parts_of_user:
            content = joined(self._parts_of_user)
            self._messages.append(Message(role="user", content=content))
        elif self._of_assistant:
            self._messages.append(_together(self._of_assistant))
        self._parts_of_user, self._is_text, self._of_assistant = [], True, []

    def _add_result(self, field: str, block: BlockBody) -> None:
        if not block.tool_use_id:
            raise invalid_field(f"{field}.tool_use_id", "required: the call whose result this is")
        content = block.content or ""
        if isinstance(content, dict):
            raise invalid_field(f"{field}.content", "must be a text or a list of blocks")
        parts: list[Part] = (
            [TextPart(text=content)]
            if isinstance(content, str)
            else list(self._parts(f"{field}.content", content))
        )
        if block.is_error:
            parts = [TextPart(text="Error:"), *parts]
        self._end_turn()
        self._messages.append(
            Message(
                role="tool",
                content=joined(parts),
                tool_call_id=block.tool_use_id,
                # Some servers match results by the tool's name, not by the call's id.
                tool_name=self._call_names.get(block.tool_use_id),
            )
        )

    def _add_assistant(self, field: str, content: Content) -> None:
        message = self._assistant(field, content)
        self._call_names |= {call.id: call.name for call in message.tool_calls}
        if message.text or message.thinking or message.tool_calls or message.provider_meta:
            if self._parts_of_user:
                self._end_turn()
            self._of_assistant.append(message)

    def _assistant(self, field: str, content: Content) -> Message:
        if isinstance(content, str):
            return Message(role="assistant", content=content)
        thoughts = _Thoughts()
        texts: list[str] = []
        calls: list[ToolCall] = []
        for at, block in enumerate(content):
            match block.type:
                case "text":
                    texts.append(block.text or "")
                    let_go(block, "text")
                case "thinking" | "redacted_thinking":
                    thoughts.add(block)
                case "tool_use":
                    calls.append(_call(f"{field}.{at}", block))
                case "compaction" if isinstance(block.content, str):
                    texts.append(block.content)
                case other:
                    self._leave_out(f"{field}.{at}.type", other)
        return Message(
            role="assistant",
            content=joined_texts(texts),
            thinking=thoughts.text or None,
            tool_calls=tuple(thoughts.with_meta(call) for call in calls),
            provider_meta=thoughts.meta or None,
        )

    def _parts(
        self, field: str, blocks: Iterable[BlockBody], without: frozenset[str] = frozenset()
    ) -> Iterator[Part]:
        for at, block in enumerate(blocks):
            if block.type not in without:
                yield from self._part(f"{field}.{at}", block)

    def _part(self, field: str, block: BlockBody) -> Iterator[Part]:
        match block.type:
            case "text":
                part = TextPart(text=block.text or "")
                let_go(block, "text")  # of a large one there is no second
                yield part
            case "image":
                yield _image(f"{field}.source", block.source)
            case "document":
                yield from self._document(field, block)
            case "search_result":
                heading = "\n".join(line for line in (block.title, _text_of(block.source)) if line)
                yield TextPart(text=heading)
                yield from self._parts(f"{field}.content", _blocks(block.content))
            case "tool_reference":
                self._tools.add(block.tool_name)
                yield TextPart(text=f"The tool {block.tool_name} is available now.")
            case other:
                self._leave_out(f"{field}.type", other)

    def _document(self, field: str, block: BlockBody) -> Iterator[Part]:
        source = block.source
        heading = "\n".join(line for line in (block.title, block.context) if line)
        if not isinstance(source, SourceBody) or source.type not in {"text", "content"}:
            raise unsupported_field(
                f"{field}.source",
                "only documents of plain text are supported (source of type text or content): "
                "extract the text of a PDF first",
            )
        if heading:
            yield TextPart(text=heading)
        if source.type == "text":
            part = TextPart(text=source.data or "")
            let_go(source, "data")
            yield part
        else:
            yield from self._parts(f"{field}.source.content", _blocks(source.content))

    def _leave_out(self, field: str, kind: str) -> None:
        """Leave out a block of a tool that runs at Anthropic; raises Refusal for uploads."""
        if kind in {"container_upload", "tool_result", "tool_use", "thinking", "redacted_thinking"}:
            raise invalid_field(field, f"a block of type {kind} is not allowed here")
        self._left_out.append(f"messages[].content[{kind}]")


class _Thoughts:
    """The thinking of one turn, and the opaque data that came with it."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[str, Any] = {}
        self._details: list[dict[str, Any]] = []
        self._message: dict[str, Any] = {}

    def add(self, block: BlockBody) -> None:
        text, sealed = block.thinking or "", block.signature or block.data or ""
        facts = facts_in(sealed)
        if facts is None:
            self._add_foreign(text, sealed, is_redacted=block.type == "redacted_thinking")
            facts = {}
        self._texts.append(text or str(facts.get("thinking") or ""))
        for name, known in (("calls", self._calls), ("message", self._message)):
            given = facts.get(name)
            known.update(given if isinstance(given, dict) else {})

    def _add_foreign(self, text: str, sealed: str, *, is_redacted: bool) -> None:
        if is_redacted:
            self._details.append(redacted_detail(sealed, len(self._details)))
        elif sealed:
            self._details.append(thinking_detail(text, sealed, len(self._details)))

    @property
    def text(self) -> str:
        return joined_texts(self._texts)

    @property
    def meta(self) -> dict[str, Any]:
        return {**({DETAILS: self._details} if self._details else {}), **self._message}

    def with_meta(self, call: ToolCall) -> ToolCall:
        meta = self._calls.get(call.id or "")
        return call.model_copy(update={"provider_meta": meta}) if isinstance(meta, dict) else call


def joined(parts: list[Part]) -> str | tuple[Part, ...]:
    """Text alone as a string, because some servers accept no parts; blocks are lines of it.

    The list is emptied.
    """
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    others = tuple(parts) if len(texts) < len(parts) else ()
    parts.clear()
    return others or joined_texts(texts, LINE)


def _parts_of(content: str | tuple[Part, ...]) -> list[Part]:
    return [TextPart(text=content)] if isinstance(content, str) else list(content)


def _together(turns: list[Message]) -> Message:
    """Messages of the assistant that follow each other, as one; the list is emptied."""
    if len(turns) == 1:
        return turns[0]
    meta: dict[str, Any] = {}
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for turn in taken(turns):
        meta |= turn.provider_meta or {}
        texts.append(turn.text)
        thoughts.append(turn.thinking or "")
        calls += turn.tool_calls
    return Message(
        role="assistant",
        content=joined_texts(texts),
        thinking=joined_texts(thoughts) or None,
        tool_calls=tuple(calls),
        provider_meta=meta or None,
    )


def _call(field: str, block: BlockBody) -> ToolCall:
    if not block.id or not block.name:
        raise invalid_field(field, "id and name are required")
    return ToolCall(id=block.id, name=block.name, arguments=json_text(block, "input"))


def _image(field: str, source: SourceBody | str | None) -> ImagePart:
    try:
        match source:
            case SourceBody(type="base64", data=str(data)):
                return ImagePart.labelled(source.media_type or "image/png", data)
            case SourceBody(type="url", url=str(url)):
                return ImagePart.of(url)
            case _:
                raise unsupported_field(
                    field, "images are sent as base64 or url; files are not stored for messages"
                )
    except ValueError as error:
        raise invalid_field(field, str(error)) from None


def _text_of(source: SourceBody | str | None) -> str:
    return source if isinstance(source, str) else ""


def _blocks(content: Content | dict[str, Any] | None) -> Sequence[BlockBody]:
    if isinstance(content, str):
        return (BlockBody(type="text", text=content),)
    return content if isinstance(content, list) else ()
