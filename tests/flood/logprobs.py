"""Answers with log probabilities: with twenty of each token, they are a hundred times the text."""

import asyncio
from secrets import token_hex
from typing import Any

import httpx
from support.relay import relay_on

from contract.events import Delta, Done, LogProb
from flood.kept import claimed
from flood.scene import Case, Outcome, Scene

_PATIENCE_S = 200.0
_TOKENS, _TOP = 16_000, 20
_CAP = 2**30
_PROMPT = f"what is likely {token_hex(8)}"


def _token(number: int) -> Delta:
    """A word, and those that were likely in its place."""
    top = tuple(_one(f" w{number + n}") for n in range(_TOP))
    return Delta(content=f" w{number}", logprobs=(_one(f" w{number}", top),))


def _one(word: str, top: tuple[LogProb, ...] = ()) -> LogProb:
    return LogProb(token=word, logprob=-0.5, bytes=tuple(word.encode()), top_logprobs=top)


async def _answered(at: Scene, path: str, body: dict[str, Any], *, each: bytes) -> Outcome:
    """The answer to a request, which has `each` for each word that was likely."""
    tokens = at.many(_TOKENS)
    async with (
        relay_on(at.redis.url, log_cap_bytes=_CAP) as relay,
        httpx.AsyncClient(base_url=at.url, timeout=_PATIENCE_S) as http,
    ):
        asking = asyncio.create_task(http.post(path, json={"model": "m", **body}))
        claim = await claimed(relay, "scripted.chat", _PROMPT)
        attempt_log = relay.attempt_log(claim)
        for number in range(tokens):
            attempt_log.append(_token(number))
            await attempt_log.wait_for_room()
        attempt_log.append(Done())
        await attempt_log.flush()
        answer = await asking
    found = answer.content.count(each)
    said = f"{answer.status_code}, {found} in {len(answer.content)} bytes"
    return Outcome(said, answer.status_code == 200 and found >= tokens * _TOP)


async def chat(at: Scene) -> Outcome:
    """A chat that does not stream."""
    body = {
        "messages": [{"role": "user", "content": _PROMPT}],
        "logprobs": True,
        "top_logprobs": _TOP,
    }
    return await _answered(at, "/v1/chat/completions", body, each=b'"token":" w')


async def completion(at: Scene) -> Outcome:
    """Raw text, whose answer has lists of tokens, of offsets, and of what was likely."""
    body = {"prompt": _PROMPT, "logprobs": _TOP, "max_tokens": _TOKENS}
    return await _answered(at, "/v1/completions", body, each=b":-0.5")


async def response_as_a_stream(at: Scene) -> Outcome:
    """A response as a stream, whose last events have all of them four times again."""
    wanted = {"include": ["message.output_text.logprobs"], "top_logprobs": _TOP}
    body = {"input": _PROMPT, "stream": True, **wanted}
    return await _answered(at, "/v1/responses", body, each=b'"token":" w')


CASES = [
    Case("336,000 logprobs of a chat", chat, 64),
    Case("320,000 logprobs of raw text", completion, 64),
    Case("336,000 logprobs of a streamed response", response_as_a_stream, 100),
]
