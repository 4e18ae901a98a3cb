"""An answer that broke off is continued from there, or starts over; no character comes twice."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest

from contract.chat import ChatRequest, JsonFormat, Message, SchemaFormat, Tool, ToolCall
from contract.embeddings import EmbedRequest
from contract.errors import BackendRejected, ContextExceeded
from contract.events import (
    Delta,
    Done,
    Event,
    Image,
    Phase,
    Progress,
    Reset,
    Resumed,
    ToolCallDelta,
    Usage,
    Vectors,
)
from contract.images import ImageRequest
from contract.jobs import AnyRequest
from contract.models import PullRequest
from contract.result import Result, fold
from workers.continuation import (
    Complete,
    Continuation,
    Continue,
    EarlierOutput,
    Fresh,
    Plan,
    StartOver,
    plan,
)
from workers.run import stream
from workers.scripted.backend import Scripted

ROWS = EmbedRequest(model="scripted-embed", input=("a", "b"))
TRICKY = " a  b\n\n c\t🌍 ünï  \n- d\u00a0e \n\nend  "


def ask(model: str = "scripted-story", text: str = "tell", **fields: Any) -> ChatRequest:
    return ChatRequest(
        **{"model": model, "messages": (Message(role="user", content=text),), **fields}
    )


def earlier_output(*events: Event) -> EarlierOutput:
    output = EarlierOutput()
    for event in events:
        output.add(event)  # type: ignore[arg-type]
    return output


def texts(*pieces: str) -> list[Event]:
    return [Delta(content=piece) for piece in pieces]


async def all_of(events: AsyncGenerator[Event, None]) -> list[Event]:
    async with aclosing(events) as stream:
        return [event async for event in stream]


async def next_attempt(
    request: AnyRequest, before: Sequence[Event], attempt: int = 2
) -> list[Event]:
    """The events of a new attempt after this log."""
    backend = Scripted()
    chosen = await plan(request, earlier_output(*before), backend)
    return await all_of(
        Continuation(chosen, request, attempt, partial(stream, backend=backend)).events()
    )


async def whole(request: AnyRequest) -> list[Event]:
    return await all_of(stream(request, Scripted()))


def result(*events: Event) -> Result:
    return fold(events)  # type: ignore[arg-type]


class Replaying:
    """A backend that can continue an answer, and replies with these events to the first request."""

    name = "replaying"

    def __init__(self, *events: Event | Exception) -> None:
        self.events = events
        self.requests: list[ChatRequest] = []

    async def prefills(self, model: str) -> bool:
        return model != "cannot"

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Any, None]:
        self.requests.append(request)
        for event in self.events if len(self.requests) == 1 else (*texts("anew"), Done()):
            if isinstance(event, Exception):
                raise event
            yield event

    async def continues(self, request: ChatRequest, *before: Event) -> list[Event]:
        chosen = await plan(request, earlier_output(*before), self)  # type: ignore[arg-type]
        return await all_of(Continuation(chosen, request, 2, self.chat).events())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_",
    [
        ask("scripted-story:chunks=70"),
        ask("scripted-echo", TRICKY),
        ask("scripted-story:chunks=150", max_tokens=140),
    ],
    ids=["story", "white space", "a limit"],
)
async def test_a_cut_after_any_fragment_loses_and_repeats_nothing(request_: ChatRequest) -> None:
    uninterrupted = await whole(request_)
    deltas = [event for event in uninterrupted if isinstance(event, Delta)]
    for cut in range(1, len(deltas) + 1):
        again = await next_attempt(request_, deltas[:cut])
        whole_answer = result(*deltas[:cut], *again)

        assert isinstance(again[0], Resumed)
        assert whole_answer.content == result(*uninterrupted).content
        assert _ending(whole_answer) == _ending(result(*uninterrupted))


def _ending(whole_answer: Result) -> tuple[Any, int]:
    assert whole_answer.usage is not None
    return whole_answer.finish_reason, whole_answer.usage.completion_tokens


@pytest.mark.parametrize("text", [TRICKY, "one two three"])
async def test_a_cut_at_any_character_loses_and_repeats_nothing(text: str) -> None:
    request = ask("scripted-echo", text)
    for cut in range(1, len(text) + 1):
        again = await next_attempt(request, texts(text[:cut]))

        assert result(*texts(text[:cut]), *again).content == text


async def test_an_answer_is_continued_as_often_as_it_is_cut() -> None:
    request = ask("scripted-story:chunks=40")
    uninterrupted = await whole(request)
    log: list[Event] = []
    for attempt in range(1, 14):
        events = await next_attempt(request, log, attempt) if log else uninterrupted
        log += [event for event in events if not isinstance(event, Done)][:4]
    log += await next_attempt(request, log, 14)

    assert result(*log).content == result(*uninterrupted).content
    assert result(*log).usage == result(*uninterrupted).usage
    assert not any(isinstance(event, Reset) for event in log)


async def test_without_output_there_is_neither_resumed_nor_reset() -> None:
    again = await next_attempt(ask(), [Phase(phase="loading")])

    assert again == await whole(ask())


async def test_output_before_a_reset_is_not_continued() -> None:
    before = [*texts("wrong"), Reset(attempt=2, reason=""), *texts("This is")]
    again = await next_attempt(ask(), before, 3)

    assert result(*before, *again).content == result(*await whole(ask())).content


UNSOUND: dict[str, tuple[ChatRequest, list[Event]]] = {
    # ai-dynamo/dynamo #7930: a structured answer is not continued.
    "a schema": (ask(response_format=SchemaFormat(schema_={})), texts('{"a')),
    "any object": (ask(response_format=JsonFormat()), texts('{"a')),
    "tools": (ask(tools=(Tool(name="f"),)), texts("I call")),
    "a call": (ask(), [Delta(tool_calls=(ToolCallDelta(index=0, name="f"),))]),
    "only thinking": (ask(), [Delta(thinking="hm")]),
    "thinking before it": (ask(), [Delta(thinking="hm"), *texts("So")]),
    "thinking requested": (ask(think="high"), texts("So")),
    "a refusal": (ask(), [Delta(refusal="No.")]),
    "metadata of the provider": (ask(), [Delta(content="a", provider_meta={"x": 1})]),
    "nothing but white space": (ask(), texts(" \n")),
    "half a character": (ask(), texts("gr\ufffd")),
    "a template's mark": (ask(), texts("then comes <|im_end|> and")),
    "a stop sequence's beginning": (ask(stop=("\n\nUser:",)), texts("fine.\n")),
    "a stop sequence's beginning and white space": (ask(stop=("EN D",)), texts("the EN ")),
    "a model that cannot": (ask("cannot"), texts("So")),
    "a call without a result": (
        ask(messages=(Message(role="assistant", tool_calls=(ToolCall(name="f"),)),)), texts("So")
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", UNSOUND)
async def test_an_answer_that_cannot_be_continued_starts_over(why: str) -> None:
    request, before = UNSOUND[why]
    backend = Replaying(*texts("anew"), Done())
    again = await backend.continues(request, *before)

    assert [event.type for event in again] == ["reset", "delta", "done"]
    assert result(*before, *again).content == "anew"
    assert backend.requests == [request]


async def test_an_answer_with_tools_that_may_not_be_called_is_continued() -> None:
    request = ask(tools=(Tool(name="f"),), tool_choice="none")

    assert isinstance(await plan(request, earlier_output(*texts("So")), Scripted()), Continue)


@pytest.mark.parametrize(
    ("request_", "before", "expected"),
    [
        (ROWS, [], Fresh),
        (ROWS, [Vectors(index=0, count=1, dimension=1, data="AAAAAA==")], StartOver),
        (ImageRequest(model="i", prompt="?"), [Image(index=0, data="", partial=True)], StartOver),
        (PullRequest(model="m"), [Progress(status="pulling")], Fresh),
    ],
)
async def test_vectors_and_images_start_over_and_a_pull_is_sent_again(
    request_: AnyRequest, before: list[Event], expected: type[Plan]
) -> None:
    # ollama #1763, #6101, #12507: a pull that is interrupted is not resumed.
    assert isinstance(await plan(request_, earlier_output(*before), Scripted()), expected)


async def test_the_beginning_is_sent_back_without_trailing_white_space() -> None:
    # vllm #9547: a trailing line break is refused, or trimmed and then repeated.
    backend = Replaying(*texts("\n", "b"), Done())
    again = await backend.continues(ask(), *texts("a", " \n"))

    assert backend.requests[0].messages[-1] == Message(role="assistant", content="a")
    assert result(*texts("a", " \n"), *again).content == "a \n\nb"


async def test_a_clients_own_beginning_and_the_earlier_output_are_one_message() -> None:
    own = (Message(role="user", content="?"), Message(role="assistant", content="It is"))
    backend = Replaying(Done())
    await backend.continues(ask(messages=own), *texts(" warm"))

    assert [m.text for m in backend.requests[0].messages] == ["?", "It is warm"]


async def test_a_beginning_that_the_server_repeats_is_removed() -> None:
    # llama.cpp before #23012 (May 2026) ignores continue_final_message and repeats.
    beginning = "a beginning that is longer than a token"
    backend = Replaying(*texts(f"{beginning} goes", " on"), Done())
    again = await backend.continues(ask(), *texts(beginning))

    assert result(*texts(beginning), *again).content == f"{beginning} goes on"


async def test_a_word_that_the_model_repeats_is_not_removed() -> None:
    again = await Replaying(*texts(" ha", " ha"), Done()).continues(ask(), *texts(" ha"))

    assert result(*texts(" ha"), *again).content == " ha ha ha"


@pytest.mark.parametrize(
    "instead", [Delta(thinking="hm"), BackendRejected("the last message must be the user's")]
)
async def test_a_backend_that_does_not_continue_after_all_starts_over(
    instead: Event | Exception,
) -> None:
    # vllm #38749: a reasoning parser takes the rest of an answer for thinking.
    backend = Replaying(Phase(phase="loading"), instead)
    again = await backend.continues(ask(), *texts("So"))

    assert [event.type for event in again] == ["phase", "reset", "delta", "done"]
    assert backend.requests[1] == ask()


async def test_max_tokens_counts_the_earlier_output() -> None:
    backend = Replaying(Done())
    await backend.continues(ask(max_tokens=10), *texts("a", " b", " c"))

    assert backend.requests[0].max_tokens == 7


async def test_an_answer_at_its_length_limit_is_done() -> None:
    request = ask(max_tokens=3)
    chosen = await plan(request, earlier_output(*texts("a", " b", " c")), Scripted())

    assert isinstance(chosen, Complete)
    assert [e.type for e in await next_attempt(request, texts("a", " b", " c"))] == [
        "resumed", "done",
    ]  # fmt: skip
    assert chosen.done.finish_reason == "length"


async def test_an_answer_that_fills_the_context_has_reached_its_length() -> None:
    again = await Replaying(ContextExceeded("too long")).continues(ask(), *texts("a", " b"))

    assert again[-1] == Done(finish_reason="length", usage=Usage(completion_tokens=2))


async def test_usage_counts_the_prompt_once_and_both_parts_of_the_answer() -> None:
    rest = Usage(prompt_tokens=12, completion_tokens=5, cached_tokens=11)
    again = await Replaying(Done(usage=rest)).continues(ask(), *texts("a", " b", " "))

    assert again[-1] == Done(usage=Usage(prompt_tokens=10, completion_tokens=7, cached_tokens=10))


async def test_fragments_that_were_joined_are_estimated() -> None:
    joined = "word " * 40
    again = await Replaying(Done(usage=Usage(prompt_tokens=99))).continues(ask(), *texts(joined))

    assert isinstance(again[-1], Done)
    assert again[-1].usage.completion_tokens == 50


async def test_a_stop_sequence_is_found_in_the_rest_as_in_the_whole() -> None:
    request = ask("scripted-echo", "one two three four five", stop=("four",))
    uninterrupted = result(*await whole(request))
    for cut in range(1, len(uninterrupted.content) + 1):
        before = texts(uninterrupted.content[:cut])
        whole_answer = result(*before, *await next_attempt(request, before))

        assert (whole_answer.content, whole_answer.finish_reason) == ("one two three ", "stop")
