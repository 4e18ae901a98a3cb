"""Honest large requests that a worker runs beside the shim, from their body to their last byte.

The worker shares the processors with the shim: what it takes of them, /healthz feels, too.
"""

import asyncio
import json
from collections.abc import Callable

import httpx
from support.processes import worker
from support.relay import relay_on

from flood.bodies import JSON, text_of_another_alphabet
from flood.scene import Case, Outcome, Scene

_PATIENCE_S = 200.0
_DOCUMENTS, _TEXTS, _REQUESTS = 8000, 2000, 9000
_STORED_WORDS, _STREAMS = 175, 20


async def _served(at: Scene, path: str, body: bytes, holds: Callable[[bytes], bool]) -> Outcome:
    """The answer to a request, by a worker with the scripted backend."""
    with worker(at.redis.url, at.folder) as one:
        async with relay_on(at.redis.url) as relay:
            await one.ready(relay)
        async with httpx.AsyncClient(base_url=at.url, timeout=_PATIENCE_S) as http:
            answer = await http.post(path, content=body, headers=JSON)
            is_kept = answer.status_code == 200 and holds(answer.content)
            return Outcome(f"{answer.status_code}, {len(answer.content)} bytes", is_kept)


async def documents_that_come_back(at: Scene) -> Outcome:
    """21 MB of documents, which are returned with their scores."""
    documents = [text_of_another_alphabet(2800)] * at.many(_DOCUMENTS)
    given = {
        "model": "scripted-rerank",
        "query": "w",
        "documents": documents,
        "return_documents": True,
    }
    body = json.dumps(given, ensure_ascii=False).encode()

    def holds(answer: bytes) -> bool:
        results = json.loads(answer)["results"]
        texts = {each["document"]["text"] for each in results}
        return len(results) == len(documents) and texts == set(documents)

    return await _served(at, "/v1/rerank", body, holds)


async def texts_that_come_back(at: Scene) -> Outcome:
    """18 MB of texts, which Cohere's answer repeats beside their vectors."""
    texts = [text_of_another_alphabet(9000)] * at.many(_TEXTS)
    given = {
        "model": "scripted-embed",
        "texts": texts,
        "input_type": "search_document",
        "embedding_types": ["float"],
    }
    body = json.dumps(given, ensure_ascii=False).encode()

    def holds(answer: bytes) -> bool:
        told = json.loads(answer)
        return len(told["embeddings"]["float"]) == len(texts) and set(told["texts"]) == set(texts)

    return await _served(at, "/v2/embed", body, holds)


async def batch_of_many(at: Scene) -> Outcome:
    """A batch of 18 MB, until its last request has an answer."""
    message = {"role": "user", "content": "w " * 990}
    params = {"model": "scripted-echo", "max_tokens": 1, "messages": [message]}
    requests = [
        {"custom_id": f"r{number}", "params": params} for number in range(at.many(_REQUESTS))
    ]
    body = json.dumps({"requests": requests}).encode()
    with worker(at.redis.url, at.folder) as one:
        async with relay_on(at.redis.url) as relay:
            await one.ready(relay)
        async with httpx.AsyncClient(base_url=at.url, timeout=_PATIENCE_S) as http:
            answer = await http.post("/v1/messages/batches", content=body, headers=JSON)
            answer.raise_for_status()
            where = f"/v1/messages/batches/{answer.json()['id']}"
            async with asyncio.timeout(_PATIENCE_S):
                while (told := (await http.get(where)).json())["processing_status"] != "ended":
                    await asyncio.sleep(0.5)
            results = await http.get(f"{where}/results")
    counts, lines = told["request_counts"], results.text.count('"succeeded"')
    return Outcome(f"{counts['succeeded']} of {len(requests)}", lines == len(requests))


async def streams_of_a_stored_response(at: Scene) -> Outcome:
    """An answer of 10 MB that many read again at once: its last events have it four times."""
    asked = {"model": "scripted-echo", "input": " ".join(["w" * 60_000] * at.many(_STORED_WORDS))}
    with worker(at.redis.url, at.folder) as one:
        async with relay_on(at.redis.url) as relay:
            await one.ready(relay)
        async with httpx.AsyncClient(base_url=at.url, timeout=_PATIENCE_S) as http:
            answer = await http.post("/v1/responses", json=asked)
            where = f"/v1/responses/{answer.raise_for_status().json()['id']}?stream=true"
    async with httpx.AsyncClient(base_url=at.url, timeout=_PATIENCE_S) as http:
        ends = await asyncio.gather(*(_to_its_end(http, where) for _ in range(_STREAMS)))
    least = 5 * len(asked["input"])
    is_kept = all(size > least and is_whole for size, is_whole in ends)
    return Outcome(f"{len(ends)} of {min(ends)[0]} bytes", is_kept)


async def _to_its_end(http: httpx.AsyncClient, where: str) -> tuple[int, bool]:
    """How many bytes a stream has, and whether the event that ends it came."""
    size, before, has_ended = 0, b"", False
    async with http.stream("GET", where) as answer:
        async for data in answer.aiter_raw():
            size += len(data)
            has_ended = has_ended or b"event: response.completed" in before + data[:64]
            has_ended = has_ended or b"event: response.completed" in data
            before = data[-64:]
    return size, has_ended and before.endswith(b"\n\n")


CASES = [
    Case("21 MB ranked and returned", documents_that_come_back, 4 * 21, has_workers=True),
    Case("18 MB embedded and returned", texts_that_come_back, 4 * 18, has_workers=True),
    Case("a batch of nine thousand", batch_of_many, 4 * 18, has_workers=True),
    Case("20 streams of a stored 10 MB", streams_of_a_stored_response, 600, has_workers=True),
]
