"""Requests as script prompts, and turns as events of the in-process scripted backend."""

from collections.abc import Iterator

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.events import Delta, FinishReason, LogProb, ToolCallDelta
from workers.scripted.script import Prompt, Turn


def prompt_of(request: ChatRequest) -> Prompt:
    """The `Prompt` of a chat request."""
    if request.prompt is not None:
        text = _text(request.prompt)
        return Prompt(text=text, max_tokens=request.max_tokens, stop=request.stop)
    last = request.messages[-1]
    users = [message for message in request.messages if message.role == "user"]
    return Prompt(
        text=users[-1].text if users else "",
        said=last.text if last.role == "assistant" else "",
        tools=tuple(tool.name for tool in request.tools) if request.tool_choice != "none" else (),
        max_tokens=request.max_tokens,
        stop=request.stop,
        images=len(users[-1].images) if users else 0,
    )


def texts_of(request: EmbedRequest) -> tuple[str, ...]:
    """The texts of a request; each token id is a word."""
    return request.input or tuple(_text(ids) for ids in request.tokens)


def deltas(turn: Turn, request: ChatRequest) -> Iterator[Delta]:
    """The deltas of a turn, one per word; with logprobs of -0.5 if requested."""
    for word in turn.thinking:
        yield Delta(thinking=word)
    for word in turn.content:
        yield Delta(content=word, logprobs=_logprobs(word, request) if request.logprobs else None)
    for index, (name, arguments) in enumerate(turn.calls):
        call = ToolCallDelta(index=index, id=f"call_{index}", name=name, arguments=arguments)
        yield Delta(tool_calls=(call,))


def _logprobs(word: str, request: ChatRequest) -> tuple[LogProb, ...]:
    one = LogProb(token=word, logprob=-0.5, bytes=tuple(word.encode()))
    return (one.model_copy(update={"top_logprobs": (one,) * min(1, request.top_logprobs)}),)


def finish_of(turn: Turn) -> FinishReason:
    """The finish reason of a turn."""
    if turn.calls:
        return "tool_calls"
    return "length" if turn.finish == "length" else "stop"


def _text(prompt: str | tuple[int, ...]) -> str:
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
