"""What servers say when they are busy or still loading: one table for all backends.

Busy is no fault: the job keeps its attempts, no circuit counts it, and it is tried again after a
while (workers/retry.py). Statuses alone do not tell: llama.cpp's router says it with a 500,
gateways with a 409, and a 503 may be either. So the words decide first, wherever they stand: in the
body of any error status, or in the middle of a stream.
"""

from typing import Final, NamedTuple


class Phrase(NamedTuple):
    """Words that tell of it, in lower case, and where they were seen."""

    words: str
    source: str


LOADING: Final = (
    Phrase("loading model", "llama-server server.cpp: 503 on every route until the model is there"),
    Phrase("model is loading", "llama.cpp router while a child starts"),
    Phrase("currently loading", "Hugging Face: 503 'Model x is currently loading'"),
    Phrase("not ready", "llama-swap: 503 'process not ready'"),
)
"""The model is on its way into memory."""

BUSY: Final = (
    Phrase("maximum pending requests", "Ollama server/sched.go ErrMaxQueue, 503"),
    Phrase("server busy", "Ollama server/sched.go ErrMaxQueue, 503"),
    Phrase(
        "model limit reached", "llama.cpp server-models.cpp: 500 while an eviction is under way"
    ),
    Phrase("rate_limit_exceeded", "OpenAI, 429"),
    Phrase("slow_down", "OpenAI, 503"),
    Phrase("overloaded", "OpenAI: 503 server_is_overloaded; Hugging Face; Anthropic: 529"),
    Phrase("resource_exhausted", "Gemini and Vertex, 429"),
    Phrase(
        "too many requests", "the reason phrase of 429, which gateways repeat in a body or stream"
    ),
    Phrase("queue is full", "stable-diffusion.cpp: 429 'job queue is full'"),
)
"""The server has as much to do as it takes on."""

CONFLICTS: Final = (
    Phrase("try again", "gateways: 409 while another request holds the model"),
    Phrase("busy", "the same"),
    Phrase("already loading", "the same"),
    Phrase("in progress", "the same"),
)
"""The same in a 409, which is a refusal otherwise. In a 500 these words are an apology."""

LOADING_WORDS: Final = tuple(phrase.words for phrase in LOADING)
BUSY_WORDS: Final = tuple(phrase.words for phrase in BUSY)
CONFLICT_WORDS: Final = tuple(phrase.words for phrase in CONFLICTS)

STATUSES: Final = frozenset({408, 425, 429, 503, 529})
"""Busy whatever the words: 408 is a gateway that had no turn for us, 425 too early."""
