"""Log probabilities as OpenAI's APIs have them, of entries of the log (`contract.events.LogProb`).

Each begins with the token, by which `api_shim/following/long_answer.py` finds its marks.
"""

from collections.abc import Mapping
from typing import Any


def chat_logprob(entry: Mapping[str, Any]) -> dict[str, Any]:
    """As `/v1/chat/completions` has it: `bytes` is null if the backend has sent none."""
    alternatives = [_alone(each) for each in entry.get("top_logprobs") or ()]
    return {**_alone(entry), "top_logprobs": alternatives}


def _alone(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry.get("bytes")}


def response_logprob(entry: Mapping[str, Any]) -> dict[str, Any]:
    """As `/v1/responses` has it: `bytes` is always a list, and those of the token if need be."""
    alternatives = [_spelt(each) for each in entry.get("top_logprobs") or ()]
    return {**_spelt(entry), "top_logprobs": alternatives}


def _spelt(entry: Mapping[str, Any]) -> dict[str, Any]:
    token = entry["token"]
    spelling = list(entry.get("bytes") or token.encode())
    return {"token": token, "bytes": spelling, "logprob": entry["logprob"]}
