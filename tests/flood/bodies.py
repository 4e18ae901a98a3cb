"""Floods of bodies that are allowed by their size: many messages, many names, many of anything."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import httpx

from flood.heads import all_are, told
from flood.scene import MIB, Case, Outcome, Scene

CHATS = ("/api/v1/jobs/chat", "/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses")
"""Where a conversation is sent: every surface."""
JSON = {"content-type": "application/json"}
_SMALL = 20_000
"""Bytes of a response that tells an error."""

_READ_S = 4.0
"""Until a request counts as one that waits."""


async def sent(at: Scene, path: str, body: bytes) -> tuple[str, int]:
    """Status and size of the response to a body."""
    async with httpx.AsyncClient(base_url=at.url, timeout=200) as http:
        answer = await http.post(path, content=body, headers=JSON)
    return str(answer.status_code), len(answer.content)


async def refused(at: Scene, paths: Iterable[str], body: Callable[[str], bytes]) -> Outcome:
    """One such body to each path: refused as the client's fault, in a few words."""
    found: Counter[str] = Counter()
    size = 0
    for path in paths:
        status, bytes_ = await sent(at, path, body(path))
        found[status] += 1
        size = max(size, bytes_)
    is_kept = set(found) <= {"400", "413", "422"} and size < _SMALL
    return Outcome(f"{told(found)}, {size} bytes", is_kept)


def conversation(path: str, messages: Sequence[bytes], more: bytes = b"") -> bytes:
    """A body of this path with these messages."""
    name = b"input" if path.endswith("responses") else b"messages"
    head = b'{"model":"m","max_tokens":9,"' + name + b'":['
    if path.startswith("/api/v1"):
        head = head.replace(b"input", b"messages")
    return head + b",".join(messages) + b"]" + more + b"}"


async def many_messages(at: Scene) -> Outcome:
    messages = [b'{"role":"user","content":""}'] * at.many(1_000_000)
    return await refused(at, CHATS, lambda path: conversation(path, messages))


async def many_parts(at: Scene) -> Outcome:
    parts = b",".join([b'{"type":"text","text":""}'] * at.many(1_000_000))
    message = b'{"role":"user","content":[' + parts + b"]}"
    return await refused(at, CHATS, lambda path: conversation(path, [message]))


async def many_tools(at: Scene) -> Outcome:
    tool = b'{"type":"function","function":{"name":"f"},"name":"f"}'
    more = b',"tools":[' + b",".join([tool] * at.many(500_000)) + b"]"
    message = b'{"role":"user","content":"hello"}'
    return await refused(at, CHATS, lambda path: conversation(path, [message], more))


async def many_stops(at: Scene) -> Outcome:
    stops = json.dumps(["x"] * at.many(1_000_000)).encode()
    more = b"".join(b',"' + name + b'":' + stops for name in (b"stop", b"stop_sequences"))
    message = b'{"role":"user","content":"hello"}'
    paths = [path for path in CHATS if path not in {"/api/chat", "/v1/responses"}]
    return await refused(at, paths, lambda path: conversation(path, [message], more))


async def many_inputs(at: Scene) -> Outcome:
    body = json.dumps({"model": "m", "input": ["x"] * at.many(2_000_000)}).encode()
    return await refused(at, ("/api/v1/jobs/embed", "/v1/embeddings", "/api/embed"), lambda _: body)


async def many_names(at: Scene) -> Outcome:
    """Fields that are not known, at the top and in a message."""
    names = b",".join(b'"k%d":1' % number for number in range(at.many(1_000_000)))
    inside = b'{"role":"user","content":"",' + names + b"}"
    top = await refused(at, CHATS, lambda path: conversation(path, [], b"," + names))
    deep = await refused(at, CHATS, lambda path: conversation(path, [inside]))
    return Outcome(f"{top.said}; {deep.said}", top.is_kept and deep.is_kept)


async def nested(at: Scene) -> Outcome:
    depth = at.many(5_000_000)
    return await refused(at, CHATS, lambda path: conversation(path, [b"[" * depth + b"]" * depth]))


async def wrong_items(at: Scene) -> Outcome:
    """A small body, of which every item is an error."""
    return await refused(at, CHATS, lambda path: conversation(path, [b"1"] * 60_000))


async def long_names(at: Scene) -> Outcome:
    name = b'"' + "\u4e2d".encode() + b"x" * at.many(20 * MIB) + b'"'
    paths = [path for path in CHATS if path.startswith("/api/v1")]
    return await refused(at, paths, lambda path: conversation(path, [], b"," + name + b":1"))


async def one_large_message(at: Scene) -> Outcome:
    """An honest request of 29 MB."""
    message = b'{"role":"user","content":"' + b"x" * at.many(29 * MIB) + b'"}'
    status, _ = await sent(at, CHATS[0], conversation(CHATS[0], [message]))
    return all_are(Counter([status]), {"202"})


def lines(size_bytes: int, last: bytes) -> bytes:
    """A message of lines, as JSON."""
    text = (b"word " * 16 + b"\\n") * (size_bytes // 82) + last
    return b'{"role":"user","content":"' + text + b'"}'


async def large_text_of_another_alphabet(at: Scene) -> Outcome:
    """An honest request of 29 MB with one character that makes Python's strings twice as wide."""
    message = lines(at.many(29 * MIB), "\u4e2d".encode())
    status, _ = await sent(at, CHATS[0], conversation(CHATS[0], [message]))
    return all_are(Counter([status]), {"202"})


async def large_batch_of_another_alphabet(at: Scene) -> Outcome:
    """An honest batch with such a request."""
    message = lines(at.many(29 * MIB), "\u4e2d".encode())
    params = conversation("/v1/messages", [message])
    body = b'{"requests":[{"custom_id":"a","params":' + params + b"}]}"
    status, _ = await sent(at, "/v1/messages/batches", body)
    return all_are(Counter([status]), {"200"})


async def large_text_with_emoji(at: Scene) -> Outcome:
    """One of eight million characters, which are four times as wide; more is refused."""
    large = lines(29 * MIB, "\U0001f600".encode())
    outcome = await refused(at, CHATS, lambda path: conversation(path, [large]))
    message = lines(at.many(8 * MIB - 200), b"\\ud83d\\ude00")
    status, _ = await sent(at, CHATS[0], conversation(CHATS[0], [message]))
    return Outcome(f"{outcome.said}; {status}", outcome.is_kept and status == "202")


async def an_emoji_among_parts(at: Scene) -> Outcome:
    """20 MB of parts, one of which would make all of them four times as wide."""
    block = {"type": "text", "text": "w " * 2000}
    count = at.many(5000) if at.scale == 1 else 2500
    message = {
        "role": "user",
        "content": [*[block] * count, {"type": "text", "text": "\U0001f600"}],
    }
    item = json.dumps(message).encode()
    paths = ("/v1/chat/completions", "/v1/messages")
    outcome = await refused(at, paths, lambda path: conversation(path, [item]))
    items = item.replace(b'"text", "text"', b'"input_text", "text"')
    more = await refused(at, ("/v1/responses",), lambda path: conversation(path, [items]))
    return Outcome(f"{outcome.said}; {more.said}", outcome.is_kept and more.is_kept)


async def waits(at: Scene, path: str, body: bytes) -> Outcome:
    """A request that is accepted, and whose job nobody takes."""
    async with httpx.AsyncClient(base_url=at.url, timeout=httpx.Timeout(200, read=_READ_S)) as http:
        try:
            answer = await http.post(path, content=body, headers=JSON)
        except httpx.ReadTimeout:
            return Outcome("waits", is_kept=True)
    return Outcome(f"{answer.status_code}, {answer.text[:200]}", is_kept=False)


def text_of_another_alphabet(size_bytes: int) -> str:
    """One character that makes Python's strings twice as wide, and others."""
    return "\u4e2d" + "w " * (size_bytes // 2)


async def many_documents(at: Scene) -> Outcome:
    """An honest request of 21 MB, each of its texts with such a character."""
    documents = [text_of_another_alphabet(2800)] * at.many(8000)
    given = {"model": "m", "query": "w", "documents": documents}
    return await waits(at, "/v2/rerank", json.dumps(given, ensure_ascii=False).encode())


async def many_texts(at: Scene) -> Outcome:
    """The same of 20 MB, for vectors."""
    given = {"model": "m", "input": [text_of_another_alphabet(10_000)] * at.many(2048)}
    return await waits(at, "/v1/embeddings", json.dumps(given, ensure_ascii=False).encode())


async def many_inputs_of_parts(at: Scene) -> Outcome:
    """The same, in parts."""
    part = {"type": "text", "text": text_of_another_alphabet(2500)}
    given = {"model": "m", "inputs": [{"content": [part] * 4}] * at.many(2000)}
    return await waits(at, "/v2/embed", json.dumps(given, ensure_ascii=False).encode())


async def many_items(at: Scene) -> Outcome:
    """The same, as a conversation."""
    message = {"role": "user", "content": text_of_another_alphabet(2200)}
    messages = [json.dumps(message, ensure_ascii=False).encode()] * at.many(9000)
    return await waits(at, "/v1/responses", conversation("/v1/responses", messages))


async def many_blocks(at: Scene) -> Outcome:
    """The same, as blocks of one message."""
    block = {"type": "text", "text": text_of_another_alphabet(4000)}
    message = {"role": "user", "content": [block] * at.many(5000)}
    messages = [json.dumps(message, ensure_ascii=False).encode()]
    return await waits(at, "/v1/messages", conversation("/v1/messages", messages))


async def many_parts_of_a_chat(at: Scene) -> Outcome:
    """The same, as parts of one message."""
    part = {"type": "text", "text": text_of_another_alphabet(4000)}
    message = {"role": "user", "content": [part] * at.many(5000)}
    messages = [json.dumps(message, ensure_ascii=False).encode()]
    return await waits(at, CHATS[1], conversation(CHATS[1], messages))


async def many_short_texts(at: Scene) -> Outcome:
    """The same of 16 MB and shorter texts, in schemas of tools."""
    properties = {f"p{n}": {"description": text_of_another_alphabet(250)} for n in range(600)}
    tool = {"name": "f", "input_schema": {"type": "object", "properties": properties}}
    tools = [{**tool, "name": f"f{n}"} for n in range(at.many(100))]
    more = b',"tools":' + json.dumps(tools, ensure_ascii=False).encode()
    message = b'{"role":"user","content":"hello"}'
    return await waits(at, "/v1/messages", conversation("/v1/messages", [message], more))


async def many_calls(at: Scene) -> Outcome:
    """The same of 20 MB, as calls of a tool and their results, of different lengths."""
    turns: list[bytes] = []
    for number in range(at.many(4500)):
        text = text_of_another_alphabet(600 + 797 * number % 3200)
        use = {"type": "tool_use", "id": f"c{number}", "name": "f", "input": {"a": text}}
        result = {"type": "tool_result", "tool_use_id": f"c{number}", "content": text}
        turns += [_turn("assistant", content=[use]), _turn("user", content=[result])]
    return await waits(at, "/v1/messages", conversation("/v1/messages", turns))


async def many_calls_of_ollama(at: Scene) -> Outcome:
    """The same of Ollama's API."""
    turns: list[bytes] = []
    for number in range(at.many(4500)):
        text = text_of_another_alphabet(600 + 797 * number % 3200)
        call = {"function": {"name": "f", "arguments": {"a": text}}}
        turns += [_turn("assistant", tool_calls=[call]), _turn("tool", content=text)]
    return await waits(at, "/api/chat", conversation("/api/chat", turns))


def _turn(role: str, **fields: object) -> bytes:
    return json.dumps({"role": role, **fields}, ensure_ascii=False).encode()


async def one_large_call(at: Scene) -> Outcome:
    """The same, as the one argument of a call."""
    text = text_of_another_alphabet(at.many(20_000_000))
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {"a": text}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": "done"}
    turns = [_turn("assistant", content=[use]), _turn("user", content=[result])]
    return await waits(at, "/v1/messages", conversation("/v1/messages", turns))


async def a_million_tokens(at: Scene) -> Outcome:
    """Honest requests with as many ids of tokens as there may be."""
    ids = [[12345] * at.many(999_000)]
    body = json.dumps({"model": "m", "tokens": ids}).encode()
    status, _ = await sent(at, "/api/v1/jobs/embed", body)
    return all_are(Counter([status]), {"202"})


async def a_long_conversation(at: Scene) -> Outcome:
    """An honest request with as many messages as there may be."""
    messages = [b'{"role":"user","content":"%s"}' % (b"word " * 100)] * at.many(9_999)
    found: Counter[str] = Counter()
    status, _ = await sent(at, CHATS[0], conversation(CHATS[0], messages))
    found[status] += 1
    return all_are(found, {"202"})


async def many_large_bodies(at: Scene) -> Outcome:
    """Bodies of 24 MB on many connections at once."""
    body = conversation(
        CHATS[0], [b'{"role":"user","content":"' + b"x" * at.many(24 * MIB) + b'"}']
    )
    answers = await asyncio.gather(*(sent(at, CHATS[0], body) for _ in range(at.many(40))))
    return all_are(Counter(status for status, _ in answers), {"202", "503"})


async def openapi(at: Scene) -> Outcome:
    async with httpx.AsyncClient(base_url=at.url, timeout=60) as http:
        answers = await asyncio.gather(*(http.get("/openapi.json") for _ in range(at.many(20))))
    return all_are(Counter(str(each.status_code) for each in answers), {"200"})


CASES = [
    Case("a million messages", many_messages, 130),
    Case("a million parts", many_parts, 130),
    Case("half a million tools", many_tools, 130),
    Case("a million stop texts", many_stops, 60),
    Case("two million inputs", many_inputs, 60),
    Case("a million unknown fields", many_names, 60),
    Case("nested five million times", nested, 60),
    Case("only wrong items", wrong_items, 24),
    Case("a name of 20 MB", long_names, 90),
    Case("one message of 29 MB", one_large_message, 4 * 29),
    Case("29 MB with a Chinese character", large_text_of_another_alphabet, 4 * 29),
    Case("a batch of 29 MB with one", large_batch_of_another_alphabet, 4 * 29),
    Case("29 MB with an emoji", large_text_with_emoji, 2 * 32),
    Case("an emoji among 5,000 parts", an_emoji_among_parts, 4 * 20),
    Case("texts of 21 MB to rank", many_documents, 4 * 21),
    Case("texts of 20 MB to embed", many_texts, 4 * 19.5),
    Case("texts of 19 MB in parts to embed", many_inputs_of_parts, 4 * 19.1),
    Case("texts of 20 MB as items", many_items, 4 * 19.5),
    Case("texts of 19 MB as blocks", many_blocks, 4 * 19.2),
    Case("texts of 19 MB as parts", many_parts_of_a_chat, 4 * 19.2),
    Case("16 MB of short texts", many_short_texts, 4 * 16),
    Case("calls of 20 MB and results", many_calls, 4 * 18.9),
    Case("calls of 20 MB of Ollama's API", many_calls_of_ollama, 4 * 18.9),
    Case("a call of 19 MB", one_large_call, 4 * 19.1),
    Case("a million ids of tokens", a_million_tokens, 2 * 32),
    Case("ten thousand messages", a_long_conversation, 4 * 6),
    Case("forty bodies of 24 MB", many_large_bodies, 600),
    Case("the first openapi.json", openapi, 60, is_first=True),
]
