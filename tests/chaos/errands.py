"""What is asked of the fleet, when, by whom, and what must come of it. Pure: a seed decides.

What a scripted model says stands in its name, so the right answer is known before the question.
"""

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from contract.embeddings import pack
from workers.scripted.picture import png, words_of
from workers.scripted.script import Prompt, generate, parse, vector

Way = Literal["sse", "ndjson", "websocket"]
Status = Literal["done", "failed", "cancelled"]
ATTEMPTS = 30
"""Of a job that must succeed in the end, however often its workers are killed."""
RETRYABLE = {
    "reset": "truncated_stream",
    "cut": "truncated_stream",
    "after": "truncated_stream",
    "stall": "backend_stalled",
    "error": "server_fault",
    "drop": "backend_unreachable",
    "crash": "server_fault",
    "busy": "backend_busy",
    "loading": "model_loading",
}
"""Faults that pass, and the code that they have when they do not."""
FINAL = {
    "context": "context_exceeded",
    "missing": "model_missing",
    "auth": "authentication_refused",
    "html": "bad_endpoint",
}
BOX, GPU, SCRIPTED, REAL = "box", "gpu", "scripted", "real"
"""Two Ollamas behind one name; a vLLM; the one inside the worker; a real llama-server."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One follower: when it comes, how it reads, and when it leaves for a while."""

    after_s: float
    way: Way = "sse"
    leaves: tuple[int, ...] = ()
    """Events after which it leaves; it comes back to another shim with its cursor."""
    away_s: float = 0.0
    pause_s: float = 0.0
    """Between two reads: a slow reader."""
    returns: bool = True
    """Whether it comes back after the first time that it left."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What must come of an errand; None is what nobody can foretell."""

    statuses: frozenset[Status] = frozenset({"done"})
    codes: frozenset[str] = frozenset()
    """Of `failed`, where that may come."""
    content: str | None = None
    """Of a job that did not end in `done`, as much of it as was said."""
    thinking: str | None = None
    tools: tuple[tuple[str, str], ...] | None = None
    vectors: str | None = None
    images: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Errand:
    """One job to ask for, and what its caller does meanwhile."""

    number: int
    at_s: float
    what: str
    """In a word, for the table."""
    kind: str
    body: dict[str, Any]
    answer: Answer
    visits: tuple[Visit, ...] = ()
    cancels: tuple[float, ...] = field(default=())
    """Seconds after the enqueue."""
    later_s: float | None = None
    """Seconds after it is asked for at which it may start."""
    parent: int | None = None
    """The errand that must be done before it, or only have ended: `after_any`."""
    after_any: bool = False

    @property
    def model(self) -> str:
        """Unique to this errand where it is scripted."""
        return str(self.body.get("model", ""))


Draft = tuple[str, dict[str, Any], Answer]
Maker = Callable[[random.Random, int], Draft]


def story(dice: random.Random, number: int) -> Draft:
    """A text of a few seconds."""
    count, rate = dice.randint(20, 160), dice.choice([0, 20, 30, 50])
    return _chat(number, f"scripted-story:chunks={count},rate={rate}")


def echo(dice: random.Random, number: int) -> Draft:
    """The caller's own words, with all that JSON and UTF-8 can do to them."""
    text = "".join(dice.choice(['a"', "\\n", "é ", "\u2028", "🦜", "\n", "x "]) for _ in range(60))
    return _chat(number, "scripted-echo:rate=40,wire=split", f"number {number} {text}")


def thought(dice: random.Random, number: int) -> Draft:
    """Thinking before the words."""
    return _chat(number, f"scripted-think:think={dice.randint(5, 40)},chunks=30,rate=40")


def tools(dice: random.Random, number: int) -> Draft:
    """Tool calls, whose arguments a doubled fragment would spoil."""
    tool = {"name": "lookup", "parameters": {"type": "object"}}
    return _chat(number, f"scripted-tools:calls={dice.randint(1, 4)}", tools=[tool])


def flawed(dice: random.Random, number: int) -> Draft:
    """A backend that fails once or twice, before or in mid-answer, and then works."""
    fault = dice.choice(sorted(RETRYABLE))
    # Silence before the first word is a cold model's right; only a deadline ends it.
    at = {"crash": 0, "busy": 0, "loading": 0, "stall": 3}.get(fault, dice.choice([0, 3, 17]))
    times = dice.choice([1, 1, 2])
    return _chat(
        number,
        f"scripted-story:chunks=40,rate=40,fail={fault}:{at},times={times}",
        is_scripted=False,
    )


def hopeless(dice: random.Random, number: int) -> Draft:
    """A backend that fails for good."""
    fault = dice.choice(["crash", "reset", *sorted(FINAL)])
    # A line that is cut at the wrong moment may use up the second attempt.
    codes = frozenset({FINAL.get(fault, ""), "worker_lost", *RETRYABLE.values()})
    path, body, answer = _chat(
        number, f"scripted-story:chunks=20,fail={fault}:5", is_scripted=False, max_attempts=2
    )
    return path, body, Answer(frozenset({"failed"}), codes, content=answer.content)


def endless(dice: random.Random, number: int) -> Draft:
    """What only a cancel ends: loading, before the first word, or in its words."""
    way = dice.choice(["first=9999", "rate=20", "rate=50", "load=9999", "fail=crash", "rate=20"])
    path, body, answer = _chat(
        number, f"scripted-story:chunks=100000,{way}", max_attempts=100, deadline_s=9999
    )
    return path, body, Answer(frozenset({"cancelled"}), content=answer.content)


def forsaken(dice: random.Random, number: int) -> Draft:
    """What ends because its last follower has left, though its shim may die at that moment."""
    policy = dice.choice(["cancel", {"cancel_after_s": 1.0}])
    path, body, answer = _chat(
        number, "scripted-story:chunks=100000,rate=20", deadline_s=9999, on_disconnect=policy
    )
    return path, body, Answer(frozenset({"cancelled"}), content=answer.content)


def late(dice: random.Random, number: int) -> Draft:
    """What a deadline ends, in the queue or in its words."""
    path, body, answer = _chat(
        number, "scripted-story:chunks=100000,rate=20", deadline_s=dice.choice([0.5, 2, 4])
    )
    codes = frozenset({"deadline_exceeded"})
    return path, body, Answer(frozenset({"failed"}), codes, content=answer.content)


def embed(dice: random.Random, number: int) -> Draft:
    """Rows of vectors, every one at its place."""
    backend = dice.choice([BOX, GPU, SCRIPTED])
    texts = [f"text {number} {at}" for at in range(dice.choice([1, 30, 300]))]
    body = {"backend": backend, "model": f"scripted-embed:dim={5000 + number}", "input": texts}
    rows = pack([vector(text, 16) for text in texts])
    return "embed", {**body, "dimensions": 16}, Answer(vectors=rows)


def image(dice: random.Random, number: int) -> Draft:
    """A picture whose bytes are known."""
    body: dict[str, Any] = {
        "backend": SCRIPTED, "model": f"scripted-image:rate=10,chunks={dice.randint(2, 30)}",
        "prompt": f"a cat, number {number}", "width": 64, "height": 48, "seed": number,
    }  # fmt: skip
    words = words_of(body["prompt"], negative="", start="", strength=None, seed=number)
    picture = base64.b64encode(png(words, 64, 48)).decode()
    return "image", body, Answer(images=(picture,))


def pull(dice: random.Random, number: int) -> Draft:
    """A download of a few seconds."""
    backend = dice.choice([BOX, SCRIPTED])
    model = f"scripted-story:rate={dice.choice([0, 10])},dim={5000 + number}"
    return "pull", {"backend": backend, "model": model}, Answer()


def errand_of_a_moment(dice: random.Random, number: int) -> Draft:
    """The kinds that only ask, or change a name."""
    backend = dice.choice([BOX, SCRIPTED])
    path = dice.choice(["show", "copy", "create", "load", "unload", "running"])
    body: dict[str, Any] = {"backend": backend, "model": "scripted-story"}
    if path == "copy":
        body["destination"] = f"copy-{number}"
    elif path == "create":
        body = {"backend": backend, "model": f"made-{number}", "source": "scripted-story"}
    elif path == "running":
        body = {"backend": backend}
    return path, body, Answer()


def real(dice: random.Random, number: int) -> Draft:
    """A real model's words; nobody can foretell them."""
    body = {
        "backend": REAL, "model": "tiny", "max_tokens": 60, "temperature": 0,
        "messages": [{"role": "user", "content": f"Tell me of the queue, {number}."}],
    }  # fmt: skip
    return "chat", body, Answer()


WEIGHTS: dict[Maker, int] = {
    story: 20, echo: 6, thought: 4, tools: 4, flawed: 14, hopeless: 3, endless: 12, late: 4,
    forsaken: 5, embed: 10, image: 5, pull: 5, errand_of_a_moment: 8, real: 5,
}  # fmt: skip


def errands(dice: random.Random, seconds: float, per_s: float, *, with_real: bool) -> list[Errand]:
    """As many as come in that time, a burst now and then, ordered by time."""
    weights = {make: n for make, n in WEIGHTS.items() if with_real or make is not real}
    made: list[Errand] = []
    at_s = 0.0
    while at_s < seconds:
        at_s += dice.expovariate(per_s) if dice.random() < 0.9 else 0.0
        (make,) = dice.choices(list(weights), list(weights.values()))
        number = len(made)
        path, body, answer = make(dice, number)
        body = {"max_attempts": ATTEMPTS, **body, "metadata": {"errand": str(number)}}
        body["priority"] = dice.choice(["interactive", "standard", "standard"])
        cancels = _cancels(dice) if answer.statuses == {"cancelled"} else ()
        errand = Errand(number, at_s, make.__name__, path, body, answer, _visits(dice), cancels)
        made.append(_later(dice, errand, made))
    return made


_PARENTS_AMONG = 20


def _later(dice: random.Random, errand: Errand, before: Sequence[Errand]) -> Errand:
    """One errand in eight waits for a time, and one in eight for an earlier one to end."""
    chosen = dice.random()
    if errand.answer.statuses != {"done"} or chosen > 1 / 4 or errand.kind == "pull":
        return errand
    if chosen < 1 / 8 or not before:
        later_s = round(dice.uniform(1, 9), 2)
        return replace(errand, what=f"{errand.what}, at a time", later_s=later_s)
    parent = dice.choice(before[-_PARENTS_AMONG:])
    return replace(
        errand,
        what=f"{errand.what}, after another",
        parent=parent.number,
        after_any=dice.random() < 1 / 2,
    )


def _chat(
    number: int, model: str, text: str = "tell", *, is_scripted: bool = True, **fields: Any
) -> Draft:
    """A chat whose model's name nobody else uses: `dim` means nothing to a chat."""
    name = f"{model},dim={5000 + number}"
    names = tuple(tool["name"] for tool in fields.get("tools", ()))
    turn = generate(parse(name), Prompt(text=text, tools=names))
    backends = [BOX, BOX, GPU, *([SCRIPTED] if is_scripted else [])]
    body = {
        "backend": backends[number % len(backends)], "model": name,
        "messages": [{"role": "user", "content": text}], **fields,
    }  # fmt: skip
    said = Answer(content="".join(turn.content), thinking="".join(turn.thinking), tools=turn.calls)
    return "chat", body, said


def _cancels(dice: random.Random) -> tuple[float, ...]:
    first = dice.choice([0.0, 0.2, 1.0, 2.0, 4.0, 6.0])
    return (first,) if dice.random() < 0.6 else (first, first + dice.choice([0.0, 0.5]))


def _visits(dice: random.Random) -> tuple[Visit, ...]:
    """One to three followers; the first comes at once and stays, as a plain caller does."""
    plain = Visit(after_s=0.0, way=dice.choice(["sse", "sse", "ndjson", "websocket"]))
    return (plain, *(_restless(dice) for _ in range(dice.choice([0, 0, 1, 1, 2]))))


def _short_visits(dice: random.Random) -> tuple[Visit, ...]:
    """One or two followers that leave for good."""
    return tuple(
        Visit(after_s=0.0, leaves=(dice.randint(2, 60),), returns=False)
        for _ in range(dice.choice([1, 1, 2]))
    )


def _restless(dice: random.Random) -> Visit:
    leaves = sorted(dice.sample(range(1, 60), dice.choice([0, 1, 2, 4])))
    return Visit(
        after_s=dice.choice([0.0, 0.5, 2.0, 8.0]),
        way=dice.choice(["sse", "ndjson", "websocket"]),
        leaves=tuple(leaves),
        away_s=dice.choice([0.0, 0.3, 3.0]),
        pause_s=dice.choice([0.0, 0.0, 0.05, 0.3]),
    )
