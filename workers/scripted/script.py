"""Scripts: a model name that sets the response of a scripted model, and its faults.

    scripted-story:chunks=200,rate=50,fail=reset:20

Before the colon comes the form; after it, parameters as `name=value`, separated by commas.

Forms:

- `scripted-story`: a fixed text; with `chunks` set, that many words of it, repeated as needed
- `scripted-echo`: the last user message word by word, and the number of its images
- `scripted-think`: thinking, then the story
- `scripted-tools`: calls of the request's tools; or the answers that the conversation lists, one
  for each turn of the assistant: the last message of a user with `<turns>[...]</turns>` has them as
  JSON, each a text or `{"think", "text", "calls": [{"name", "arguments"}]}`
- `scripted-embed`: vectors
- `scripted-rerank`: scores: the share of common words among the words of query and document
- `scripted-image`: images; a step takes as long as a word

Parameters:

- `chunks`: words in the response
- `rate`: words per second; 0 is unlimited
- `first`: seconds before the first word
- `load`: seconds that a cold model takes to load
- `think`: words of thinking
- `calls`: number of tool calls; `arguments`: their JSON type on the wire: text, object, null, empty
- `size`: characters to which the first word is padded
- `dim`: dimension of the vectors
- `slots`: in how many slots a server keeps the prompts of this model (`catalog.py`); its usage
  then has cached tokens
- `usage`: where a server sends the usage: after (the last chunk), with (that chunk), none
- `wire`: how a server encodes its response, joined by `+`: trickle (one byte at a time), crlf,
  multiline (several `data:` lines per event), split (packets end inside a character), unordered
  (embeddings from last to first), short (one embedding too few), float (ignores a request for
  base64), company (a vector or score depends on the other texts of its request)
- `poison`: a request for vectors or scores fails only if one of its texts contains this word
- `style`: the server whose OpenAI-shaped responses are imitated: llamacpp, old (llama-server before
  October 2025), vllm, lmstudio, openai, ollama (its /v1), swap, proxy
- `fail`: a fault; `fail=NAME:N` fails after N words (default 0)
- `times`: how many requests for a model of exactly this name fail before one succeeds (default all)

Faults before the first word: html, body (status 200 with an error in it), busy (429 with
Retry-After 2), loading (503), missing (404), context (400), auth (401), crash (500), drop.
Faults at a word: after (the stream ends cleanly without its end marker), cut (the connection is
closed), reset, stall (nothing more is sent), error (an error in the imitated server's format),
refuse (finish_reason content_filter), die (kills the worker process if `scripted://?may_die=1`
allows it; a cut from a server). With N greater than 0, `drop` is the same as `cut`.

Invariant: the same name and the same request always give the same words.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Final

from pydantic_core import from_json, to_json

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
    " Once upon a time there was a queue before a model. Every client could see how many were ahead"
    " of it, and no client lost a word, even after it left and reconnected later."
)
THOUGHT: Final = " The user wants to read something; a story will do."
IMAGE: Final = "scripted-image"
RERANK: Final = "scripted-rerank"
_TURNS: Final = re.compile(r"<turns>(.*?)</turns>", re.DOTALL)
_NO_TURN: Final = "There is no further turn in this script."
FORMS: Final = (
    "scripted-story",
    "scripted-echo",
    "scripted-think",
    "scripted-tools",
    "scripted-embed",
    RERANK,
    IMAGE,
)
EARLY_FAULTS: Final = frozenset(
    {"html", "body", "busy", "loading", "missing", "context", "auth", "crash"}
)
"""Faults that replace the stream with an error response."""
FAULTS: Final = EARLY_FAULTS | {"drop", "after", "cut", "reset", "stall", "error", "refuse", "die"}
STYLES: Final = ("llamacpp", "old", "vllm", "lmstudio", "openai", "ollama", "swap", "proxy")
_WIRES: Final = frozenset(
    {"trickle", "crlf", "multiline", "split", "unordered", "short", "float", "company"}
)
_WORD: Final = re.compile(r"\s*\S+|\s+\Z")


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed model name; `after` is the N of `fail`, `first` and `load` are in seconds."""

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
    slots: int = 0
    usage: str = "after"
    style: str = "llamacpp"
    wire: frozenset[str] = frozenset()
    poison: str = ""
    fail: str | None = None
    after: int = 0
    times: float = math.inf


@dataclass(frozen=True, slots=True)
class Prompt:
    """The parts of a request that a script uses."""

    text: str = ""
    """The last user message."""
    prefill: str = ""
    """A trailing assistant message, which the response continues."""
    is_raw: bool = False
    """Whether the text has no chat template: if it ends with the first words of the response (of
    any form but `scripted-echo`), the response continues them."""
    tools: tuple[str, ...] = ()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    """Stop sequences; as in real servers, they match the response only, not `prefill`."""
    images: int = 0
    """How many the last user message has."""
    turns: str = ""
    """The JSON of the answers that the conversation lists."""
    turn: int = 0
    """How many of them it has already."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The response of a scripted model; words carry the space before them."""

    thinking: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    """Pairs of a name and its arguments as JSON text."""
    finish: str = "stop"
    stop_sequence: str | None = field(default=None, kw_only=True)
    """The stop sequence that ended the content."""
    prompt_tokens: int = field(default=0, kw_only=True)
    cached_tokens: int | None = field(default=None, kw_only=True)
    """None: the server does not tell."""

    @property
    def completion_tokens(self) -> int:
        """The number of words and calls: a word is a token here."""
        return len(self.thinking) + len(self.content) + len(self.calls)


def parse(model: str) -> Script:
    """Parse a model name.

    Raises ModelMissing for an unknown form and InvalidRequest for an unknown parameter.
    """
    form, _, rest = model.partition(":")
    if form not in FORMS:
        raise ModelMissing(f"model {model!r} not found; scripted models: {', '.join(FORMS)}")
    given: dict[str, Any] = {"think": 8} if form == "scripted-think" else {}
    for item in filter(None, rest.split(",")):
        name, _, value = item.partition("=")
        if name not in _PARSERS:
            raise InvalidRequest(f"model: no parameter {name!r}; there are {', '.join(_PARSERS)}")
        try:
            given |= _PARSERS[name](value)
        except ValueError as error:
            raise InvalidRequest(f"model: {name}={value}: {error}") from None
    return Script(model=model, form=form, **given)


def generate(script: Script, prompt: Prompt) -> Turn:
    """The response of a script to a prompt."""
    if script.form == "scripted-tools" and prompt.turns:
        return _listed(prompt)
    if script.form == "scripted-tools" and script.calls:
        names = prompt.tools or ("lookup",)
        calls = tuple(
            (name, to_json({"query": prompt.text or "nothing", "number": number}).decode())
            for number, name in enumerate(islice(cycle(names), script.calls))
        )
        return Turn(calls=calls, prompt_tokens=_count(prompt.text), finish="tool_calls")
    words = _content(script, prompt)
    continues_text = prompt.is_raw and script.form != "scripted-echo"  # its words are the text's
    prefill = _begun(words, prompt.text) if continues_text else prompt.prefill
    whole = _after_prefill(words, prefill)
    content, stop_sequence = _before_stop(prompt.stop, whole)
    thinking = () if prompt.prefill else tuple(islice(cycle(_words(THOUGHT)), script.think))
    finish = "stop"
    if prompt.max_tokens is not None and prompt.max_tokens < len(thinking) + len(content):
        thinking = thinking[: prompt.max_tokens]
        content, finish = content[: prompt.max_tokens - len(thinking)], "length"
        stop_sequence = None
    return Turn(
        thinking,
        content,
        finish=finish,
        stop_sequence=stop_sequence,
        prompt_tokens=_count(prompt.text) + len(_words(prompt.prefill)),
    )


def turns_in(messages: Iterable[tuple[str, str]]) -> tuple[str, int]:
    """The listed answers of a conversation, and how many it has already; ("", 0) without any.

    `messages` are pairs of a role and a text.
    """
    listed, count = "", 0
    for role, text in messages:
        found = _TURNS.findall(text) if role == "user" else ()
        if found:
            listed, count = found[-1], 0
        count += role == "assistant"
    return listed, count if listed else 0


def _listed(prompt: Prompt) -> Turn:
    """The answer that is due; raises InvalidRequest if the list is not valid JSON."""
    try:
        answers = from_json(prompt.turns or "[]")
    except ValueError as error:
        raise InvalidRequest(f"the turns of this script are not JSON: {error}") from None
    answer = answers[prompt.turn] if prompt.turn < len(answers) else _NO_TURN
    fields: dict[str, Any] = {"text": answer} if isinstance(answer, str) else answer
    calls = tuple(
        (each["name"], to_json(each.get("arguments") or {}).decode())
        for each in fields.get("calls") or ()
    )
    return Turn(
        _words(fields.get("think") or ""),
        _words(fields.get("text") or ""),
        calls,
        "tool_calls" if calls else "stop",
        prompt_tokens=_count(prompt.text),
    )


def vector(text: str, dimension: int) -> list[float]:
    """A unit vector from hashes of the words, so that texts with common words are close."""
    sums = [0] * dimension
    for word in text.lower().split() or [text]:
        digest = hashlib.shake_256(word.encode()).digest(dimension)
        for at, byte in enumerate(digest):
            sums[at] += byte * 2 - 255
    length = math.sqrt(sum(value * value for value in sums))
    return [value / length for value in sums]


def vectors(script: Script, texts: Sequence[str], dimension: int) -> list[list[float]]:
    """A vector per text, in order."""
    if "company" in script.wire and len(texts) > 1:
        texts = [f"{text} {texts[0]}" for text in texts]
    return [vector(text, dimension) for text in texts]


def scores(script: Script, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """A score from 0 to 1 for each query and document, in order."""
    shift = len(pairs) if "company" in script.wire else 1
    return [_overlap(query, document) / shift for query, document in pairs]


def _overlap(query: str, document: str) -> float:
    wanted, found = set(query.lower().split()), set(document.lower().split())
    return len(wanted & found) / (len(wanted | found) or 1)


def may_fail(script: Script, texts: Sequence[str]) -> bool:
    """Whether the script's fault applies to these texts."""
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
    """Words with the space before them; joined they are the text again."""
    return tuple(_WORD.findall(text))


def _count(text: str) -> int:
    return len(text.split())


def _after_prefill(words: Sequence[str], prefill: str) -> tuple[str, ...]:
    """The words after `prefill`; all of them if they do not start with it."""
    rest = prefill
    for at, word in enumerate(words):
        if not rest.startswith(word):
            tail = (word.removeprefix(rest), *words[at + 1 :])
            return tail if word.startswith(rest) else tuple(words)
        rest = rest[len(word) :]
    return tuple(words) if rest else ()


def _begun(words: Sequence[str], text: str) -> str:
    """As many of the first words as the text ends with."""
    begun, longest = "", ""
    for word in words:
        begun += word
        longest = begun if text.endswith(begun) else longest
    return longest


def _before_stop(
    stops: Sequence[str], words: tuple[str, ...]
) -> tuple[tuple[str, ...], str | None]:
    """The words before the first stop sequence, none of which is included, and that sequence."""
    text = "".join(words)
    found = min(((at, stop) for stop in stops if (at := text.find(stop)) >= 0), default=None)
    if found is None:
        return words, None
    rest, parts = found[0], []
    for word in words:
        parts.append(word[:rest])
        rest -= len(parts[-1])
    return tuple(filter(None, parts)), found[1]


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


def _integer(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {name: max(0, int(value))}


def _seconds(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {name: max(0.0, float(value))}


def _wires(value: str) -> dict[str, Any]:
    names = frozenset(value.split("+"))
    if not names <= _WIRES:
        raise ValueError(f"one or more of {', '.join(sorted(_WIRES))}, joined by +")
    return {"wire": names}


_PARSERS: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "chunks": _integer("chunks"),
    "rate": _seconds("rate"),
    "first": _seconds("first"),
    "load": _seconds("load"),
    "think": _integer("think"),
    "calls": _integer("calls"),
    "arguments": _one_of("arguments", "text", "object", "null", "empty"),
    "size": _integer("size"),
    "dim": _integer("dim"),
    "slots": _integer("slots"),
    "usage": _one_of("usage", "after", "with", "none"),
    "style": _one_of("style", *STYLES),
    "wire": _wires,
    "fail": _fault,
    "times": _seconds("times"),
    "poison": lambda value: {"poison": value},
}
