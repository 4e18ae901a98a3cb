"""What a scripted model says, and how it misbehaves: all of it is written in the model's name.

    scripted-story:chunks=200,rate=50,fail=reset:20

The part before the colon is the form, the part after it parameters, `name=value` with commas.

Forms: `scripted-story` tells a fixed text (by itself once, with `chunks` that many words of it,
again and again); `scripted-echo` repeats the last user message word by word and counts its images;
`scripted-think` thinks before the story; `scripted-tools` calls the request's tools;
`scripted-embed` makes vectors; `scripted-image` draws, with a step for a word.

Parameters: `chunks` words to say; `rate` words a second (0: as fast as can be); `first` seconds
before the first word; `load` seconds that a cold model takes to load; `think` words of thinking;
`calls` tool calls; `arguments` how a server writes them: text, object, null, empty; `size`
characters that the first word is stretched to; `dim` width of vectors; `usage` where a server
puts it: after the finish, with it, none; `wire` how a server cuts its bytes, joined by `+`:
trickle (a byte at a time), crlf, multiline (of `data:`), split (packets end inside a character),
unordered (embeddings from the last to the first), short (an embedding too few), float (ignore
the wish for base64), company (a vector is another one in a list of texts); `poison` a word without
which in its text the fault of an embedding does not come; `style` whose manners a server of
OpenAI's shape has: llamacpp, old (llama-server before October 2025), vllm, lmstudio, openai, ollama
(its /v1), swap, proxy;
`fail` a fault, with `:N` after N words (else 0); `times` how often a model of exactly this name
fails before it works (else always).

Faults before the first word: html, body (status 200 with an error in it), busy (429 with
Retry-After 2), loading (503), missing (404), context (400), auth (401), crash (500), drop.
Faults at a word: after (ends cleanly without its last marker), cut (closes the connection), reset,
stall (silent for ever), error (an error as that server writes it), refuse (finish_reason
content_filter), die (kills the worker's own process where `scripted://?may_die=1` lets it; of a
server it is a cut). With N greater than 0, `drop` is the same as `cut`.

Invariant: the same name and the same request give the same words, always.
"""

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Final

from pydantic_core import to_json

from contract.errors import (
    InvalidRequest,
    ModelMissing,
)

NOTICE: Final = (
    "This is the scripted backend of llm-fleet, not a language model: it recites a fixed text. To"
    " talk to a real one, start Ollama, llama-server, LM Studio or vLLM on this machine, or set"
    " LLM_<NAME>=ollama://host:11434 (openai://key@host, llamacpp://host:8080, ...) and restart."
)
STORY: Final = (
    " Once upon a time a queue stood in front of a model. Whoever came was told how many stood"
    " before him, and nobody lost a word, not even those who left and came back later."
)
THOUGHT: Final = " The user wants to hear something; a story will do."
IMAGE: Final = "scripted-image"
FORMS: Final = (
    "scripted-story",
    "scripted-echo",
    "scripted-think",
    "scripted-tools",
    "scripted-embed",
    IMAGE,
)
EARLY: Final = frozenset({"html", "body", "busy", "loading", "missing", "context", "auth", "crash"})
"""Faults that answer instead of the stream."""
FAULTS: Final = EARLY | {"drop", "after", "cut", "reset", "stall", "error", "refuse", "die"}
STYLES: Final = ("llamacpp", "old", "vllm", "lmstudio", "openai", "ollama", "swap", "proxy")
_WIRES: Final = frozenset(
    {"trickle", "crlf", "multiline", "split", "unordered", "short", "float", "company"}
)
_WORD: Final = re.compile(r"\s*\S+|\s+\Z")


@dataclass(frozen=True, slots=True)
class Script:
    """A model's name, understood."""

    model: str
    form: str
    chunks: int | None = None
    rate: float = 0.0
    first: float = 0.0
    load: float = 0.0
    think: int = 0
    calls: int = 1
    arguments: str = "text"
    size: int = 0
    dim: int = 64
    usage: str = "after"
    style: str = "llamacpp"
    wire: frozenset[str] = frozenset()
    poison: str = ""
    fail: str | None = None
    after: int = 0
    times: float = math.inf


@dataclass(frozen=True, slots=True)
class Prompt:
    """What of a request a script looks at."""

    text: str = ""
    """The last user message."""
    said: str = ""
    """A trailing assistant message: the answer goes on behind it."""
    tools: tuple[str, ...] = ()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    """Looked for in what is said now, not in `said`: servers do the same."""
    images: int = 0
    """Of the last user message."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a scripted model answers."""

    thinking: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    """Name, and arguments as JSON text."""
    finish: str = "stop"
    prompt_tokens: int = field(default=0, kw_only=True)

    @property
    def completion_tokens(self) -> int:
        """A word is a token here."""
        return len(self.thinking) + len(self.content) + len(self.calls)


def parse(model: str) -> Script:
    """Understand a model's name.

    Raises ModelMissing for an unknown form and InvalidRequest for an unknown parameter.
    """
    form, _, rest = model.partition(":")
    if form not in FORMS:
        raise ModelMissing(f"model {model!r} not found; scripted models: {', '.join(FORMS)}")
    given: dict[str, Any] = {"think": 8} if form == "scripted-think" else {}
    for item in filter(None, rest.split(",")):
        name, _, value = item.partition("=")
        if name not in _READERS:
            raise InvalidRequest(f"model: no parameter {name!r}; there are {', '.join(_READERS)}")
        try:
            given |= _READERS[name](value)
        except ValueError as error:
            raise InvalidRequest(f"model: {name}={value}: {error}") from None
    return Script(model=model, form=form, **given)


def play(script: Script, prompt: Prompt) -> Turn:
    """The answer of a script to a prompt."""
    if script.form == "scripted-tools" and script.calls:
        names = prompt.tools or ("lookup",)
        calls = tuple(
            (name, to_json({"query": prompt.text or "nothing", "number": number}).decode())
            for number, name in enumerate(islice(cycle(names), script.calls))
        )
        return Turn(calls=calls, prompt_tokens=_count(prompt.text), finish="tool_calls")
    content = _before(prompt.stop, _rest(_content(script, prompt), prompt.said))
    thinking = () if prompt.said else tuple(islice(cycle(_words(THOUGHT)), script.think))
    finish = "stop"
    if prompt.max_tokens is not None and prompt.max_tokens < len(thinking) + len(content):
        thinking = thinking[: prompt.max_tokens]
        content, finish = content[: prompt.max_tokens - len(thinking)], "length"
    prompt_tokens = _count(prompt.text) + len(_words(prompt.said))
    return Turn(thinking, content, finish=finish, prompt_tokens=prompt_tokens)


def vector(text: str, dimension: int) -> list[float]:
    """A unit vector made from a hash of each word: texts that share words lie close together."""
    sums = [0] * dimension
    for word in text.lower().split() or [text]:
        digest = hashlib.shake_256(word.encode()).digest(dimension)
        for at, byte in enumerate(digest):
            sums[at] += byte * 2 - 255
    length = math.sqrt(sum(value * value for value in sums))
    return [value / length for value in sums]


def vectors(script: Script, texts: Sequence[str], dimension: int) -> list[list[float]]:
    """A vector of each text."""
    if "company" in script.wire and len(texts) > 1:
        texts = [f"{text} {texts[0]}" for text in texts]
    return [vector(text, dimension) for text in texts]


def disagrees(script: Script, texts: Sequence[str]) -> bool:
    """Whether the fault of the script may come over these texts."""
    return any(script.poison in text for text in texts)


def _content(script: Script, prompt: Prompt) -> tuple[str, ...]:
    words = _words(NOTICE + STORY)
    if script.form == "scripted-echo":
        seen = (f" [images: {prompt.images}]",) if prompt.images else ()
        words = (*_words(prompt.text), *seen)
    if script.chunks is not None:
        words = tuple(islice(cycle(words or (" .",)), script.chunks))
    if script.size and words:
        words = (words[0].ljust(script.size, "x"), *words[1:])
    return words


def _words(text: str) -> tuple[str, ...]:
    """Words with the space before them, so that together they are the text again."""
    return tuple(_WORD.findall(text))


def _count(text: str) -> int:
    return len(text.split())


def _rest(words: Sequence[str], said: str) -> tuple[str, ...]:
    """What comes behind `said`; all of it if the words do not begin like that."""
    left = said
    for at, word in enumerate(words):
        if not left.startswith(word):
            tail = (word.removeprefix(left), *words[at + 1 :])
            return tail if word.startswith(left) else tuple(words)
        left = left[len(word) :]
    return tuple(words) if left else ()


def _before(stops: Sequence[str], words: tuple[str, ...]) -> tuple[str, ...]:
    """The words up to the first stop word, of which not a letter is said."""
    text = "".join(words)
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    left, kept = min(ends, default=len(text)), []
    for word in words:
        kept.append(word[:left])
        left -= len(kept[-1])
    return tuple(filter(None, kept)) if ends else words


def _fault(value: str) -> dict[str, Any]:
    kind, _, after = value.partition(":")
    if kind not in FAULTS:
        raise ValueError(f"one of {', '.join(sorted(FAULTS))}")
    return {"fail": kind, "after": int(after or 0)}


def _one_of(name: str, *values: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        if value not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return {name: value}

    return read


def _whole(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {name: max(0, int(value))}


def _seconds(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {name: max(0.0, float(value))}


def _wires(value: str) -> dict[str, Any]:
    names = frozenset(value.split("+"))
    if not names <= _WIRES:
        raise ValueError(f"one or more of {', '.join(sorted(_WIRES))}, joined by +")
    return {"wire": names}


_READERS: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "chunks": _whole("chunks"),
    "rate": _seconds("rate"),
    "first": _seconds("first"),
    "load": _seconds("load"),
    "think": _whole("think"),
    "calls": _whole("calls"),
    "arguments": _one_of("arguments", "text", "object", "null", "empty"),
    "size": _whole("size"),
    "dim": _whole("dim"),
    "usage": _one_of("usage", "after", "with", "none"),
    "style": _one_of("style", *STYLES),
    "wire": _wires,
    "fail": _fault,
    "times": _seconds("times"),
    "poison": lambda value: {"poison": value},
}
