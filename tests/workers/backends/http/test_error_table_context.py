"""Sentences as servers wrote them about prompts that are too long, and where they were seen."""

import json

import pytest

from contract.errors import BackendRejected, ContextExceeded, InputTooLarge
from workers.backends.http.error_table import CONTEXT_WORDS, error_from

SENTENCES = {
    "SGLang (QwenLM/Qwen3 #1321)":
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "SGLang (tokenizer_manager.py)":
        "Requested token count exceeds the model's maximum context length of 131072 tokens.",
    "vLLM (vllm-project/vllm #20409)":
        "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens "
        "(112946 in the messages, 10000 in the completion).",
    "vLLM (v1/engine/processor.py)":
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "llama-server (tests/wire/llamacpp-error-context.json)":
        "the request exceeds the available context size, try increasing it",
    "llama-cpp-python (llama.py)": "Requested tokens (5000) exceed context window of 4096",
    "Ollama (server/routes.go)": "the input length exceeds the context length",
    "Ollama (cloud models)": "prompt too long; exceeded max context length by 12 tokens",
    "LM Studio (lmstudio-ai/lmstudio-bug-tracker #546)":
        "Trying to keep the first 111490 tokens when context the overflows. However, the model is "
        "loaded with context length of only 32768 tokens, which is not enough.",
    "OpenAI, code": "context_length_exceeded",
    "OpenAI, responses":
        "Your input exceeds the context window of this model. Please adjust your input.",
    "OpenAI, gpt-5": "Input tokens exceed the configured limit of 272000 tokens.",
    "Gemini and Vertex":
        "The input token count (1196265) exceeds the maximum number of tokens allowed (1048576).",
    "Anthropic behind a proxy (continuedev/continue #6080)":
        "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease "
        "input length or `max_tokens` and try again",
    "Anthropic": "prompt is too long: 210000 tokens > 200000 maximum",
    "TGI (router/src/validation.rs)":
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000",
    "TGI, the prompt alone": "`inputs` must have less than 1024 tokens. Given: 2000",
    "Mistral":
        "Prompt contains 40010 tokens, too large for model with 32768 maximum context length",
    "xAI": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "Groq": "Please reduce the length of the messages or completion.",
    "GitHub Copilot": "prompt token count of 135686 exceeds the limit of 128000",
    "Kimi": "Invalid request: Your request exceeded model token limit: 8192",
    "MiniMax": "invalid params, context window exceeds limit",
    "vLLM, older": "context length is only 4096 tokens, so the input may have 4000 at most",
    "AWS Bedrock": "Input is too long for requested model.",
    "Poolside": "Input exceeds the maximum allowed input length of 10 tokens",
    "z.ai": "finish_reason: model_context_window_exceeded",
    "DashScope (Qwen)": "Range of input length should be [1, 98304]",
    "OpenRouter": "This endpoint's maximum context length is 65536 tokens.",
}  # fmt: skip


@pytest.mark.parametrize("status", [400, 500, 0])
@pytest.mark.parametrize("server", SENTENCES)
def test_each_servers_message_for_a_long_prompt_is_one_error(server: str, status: int) -> None:
    body = {
        "object": "error",
        "message": SENTENCES[server],
        "type": "BadRequestError",
        "code": status,
    }

    assert type(error_from(status, json.dumps(body).encode())) is ContextExceeded


def test_every_word_of_the_table_is_in_a_sentence() -> None:
    sentences = [sentence.lower() for sentence in SENTENCES.values()]
    older = {
        "context length exceeded", "context overflow", "exceed_context_size_error",
        "greater than the context length", "longer than the context length",
    }  # fmt: skip

    assert {word for word in CONTEXT_WORDS if not any(word in each for each in sentences)} <= older


@pytest.mark.parametrize(
    "sentence", ["max_tokens must be at least 1", "the length of stop is limited to 4", "too long"]
)
def test_other_lengths_are_none_of_the_context(sentence: str) -> None:
    assert type(error_from(400, json.dumps({"error": sentence}))) is BackendRejected


def test_one_input_that_is_over_the_batch_stays_what_it_is() -> None:
    sentence = "input (700 tokens) is too large to process. increase the physical batch size"

    assert type(error_from(500, json.dumps({"error": sentence}))) is InputTooLarge
