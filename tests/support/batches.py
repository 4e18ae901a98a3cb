"""Batches in tests: input files, waiting for the end, and what came out."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from openai import OpenAI
from openai.types import Batch

from support.up import wait_until

ENDED = {"completed", "failed", "expired", "cancelled"}


def row(custom_id: str, url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def echo(number: int, model: str = "scripted-echo") -> dict[str, Any]:
    """A chat that answers `n <number>`, on the backend that plays scripts by their names."""
    messages = [{"role": "user", "content": f"n {number}"}]
    return row(f"r{number}", model=model, messages=messages, backend="scripted")


def jsonl(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)


def uploaded(ask: OpenAI, rows: Iterable[Any]) -> str:
    return ask.files.create(file=("in.jsonl", jsonl(rows)), purpose="batch").id


def begun(
    ask: OpenAI, rows: Iterable[Any], endpoint: Any = "/v1/chat/completions", window: Any = "24h"
) -> Batch:
    return ask.batches.create(
        input_file_id=uploaded(ask, rows), endpoint=endpoint, completion_window=window
    )


def ended(ask: OpenAI, batch: Batch, within_s: float = 40.0) -> Batch:
    """The batch at its end."""

    def at_its_end() -> Batch | None:
        now = ask.batches.retrieve(batch.id)
        return now if now.status in ENDED else None

    found: Batch = wait_until(at_its_end, within_s)
    return found


def when(ask: OpenAI, batch: Batch, completed: int) -> Batch:
    """The batch once so many rows have a good answer."""

    def has_come_so_far() -> Batch | None:
        now = ask.batches.retrieve(batch.id)
        return now if now.request_counts and now.request_counts.completed >= completed else None

    found: Batch = wait_until(has_come_so_far)
    return found


def lines(ask: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file."""
    assert file_id is not None
    return [json.loads(line) for line in ask.files.content(file_id).text.splitlines()]


def everything(ask: OpenAI, batch: Batch) -> Counter[str]:
    """How often each custom_id has an answer, good or bad."""
    found = lines(ask, batch.output_file_id)
    if batch.error_file_id:
        found += lines(ask, batch.error_file_id)
    return Counter(line["custom_id"] for line in found)


def said(line: dict[str, Any]) -> str:
    """The words of a chat's answer."""
    words: str = line["response"]["body"]["choices"][0]["message"]["content"]
    return words
