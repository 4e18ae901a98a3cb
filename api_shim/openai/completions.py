"""POST /v1/completions: the body, and the contract's request that it means. Pure.

Source: openai/openai-openapi, CreateCompletionRequest.
"""

from typing import Final

from api_shim.openai.chat_request import Sampled, sampling
from api_shim.openai.embeddings_m_texts import Ids, ids, texts
from api_shim.openai.request_fields import made, unsupported, wrong
from contract.chat import ChatRequest

_DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's, and vLLM's."""


class CompletionBody(Sampled):
    """Raw text to be continued, with no chat template around it."""

    prompt: str | list[str] | Ids | list[Ids]
    """One text, or the ids of its tokens where the backend takes them; several texts are several
    requests."""
    suffix: str | None = None
    """What stands behind the answer, where the backend can fill in the middle."""
    echo: bool | None = None
    """Whether the answer begins with the prompt."""
    best_of: int | None = None
    """1; as `n`."""
    logprobs: int | None = None
    """How many likely tokens to tell of in each place, where the backend can."""


def to_completion(body: CompletionBody) -> ChatRequest:
    """The request; raises Refusal for what cannot be done."""
    if body.best_of is not None and body.best_of != 1:
        raise unsupported("best_of", "a request has one answer here")
    prompt = _prompt(body)
    if body.echo and (body.logprobs is not None or not isinstance(prompt, str)):
        raise unsupported("echo", "only the words of a text prompt are repeated")
    return made(
        ChatRequest,
        body,
        prompt=prompt,
        suffix=body.suffix or None,
        logprobs=body.logprobs is not None,
        top_logprobs=body.logprobs,
        **sampling(body, _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens),
    )


def repeated(body: CompletionBody) -> str:
    """What the answer begins with besides its own words."""
    request = _prompt(body) if body.echo else ""
    return request if isinstance(request, str) else ""


def _prompt(body: CompletionBody) -> str | tuple[int, ...]:
    prompts: list[str | tuple[int, ...]] = [*texts(body.prompt), *ids(body.prompt)]
    if not any(prompts):
        raise wrong("prompt", "it is empty, and there is nothing to go on from")
    if len(prompts) > 1:
        raise unsupported("prompt", "a request has one prompt here: send one for each")
    return prompts[0]
