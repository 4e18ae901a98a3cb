"""The words in which backends say that a prompt is longer than the context.

In lower case; error_table.py looks for them in an error's type, code and message. Who says which, in the
whole sentence and where it was seen, stands in tests/workers/backends/test_context_words.py.
"""

from typing import Final

CONTEXT_WORDS: Final = (
    "context_length_exceeded",
    "context length exceeded",
    "context length is only",
    "context overflow",
    "context the overflows",  # LM Studio's own spelling
    "context window exceeds limit",
    "exceed_context_size_error",
    "exceed context limit",
    "exceed context window",
    "exceed the configured limit",
    "exceeded model token limit",
    "exceeds the available context size",
    "exceeds the context length",
    "exceeds the context window",
    "exceeds the maximum number of tokens",
    "greater than the context length",
    "longer than the context length",
    "longer than the maximum model length",
    "longer than the model's context length",
    "`inputs` must have less than",
    "`inputs` tokens + `max_new_tokens` must be",
    "input is too long for requested model",
    "maximum allowed input length",
    "maximum context length",
    "maximum prompt length",
    "prompt is too long",
    "model_context_window_exceeded",
    "prompt token count of",
    "prompt too long; exceeded",
    "range of input length should be",
    "reduce the length of the messages",
)
