"""Floods of pictures: large ones, and many, all of them allowed."""

import asyncio
import base64
import json
from collections import Counter

from support.relay import Relay, relay_on

from contract.events import Delta
from flood.bodies import CHATS, sent
from flood.followers import until_claimed
from flood.heads import all_are
from flood.scene import MIB, Case, Outcome, Scene, memory

_PNG = b"\x89PNG\r\n\x1a\n"


def picture(size_bytes: int) -> str:
    """A picture in base64, of so many digits."""
    return base64.b64encode(_PNG + bytes(range(256)) * (size_bytes * 3 // 4 // 256)).decode()


def asked(path: str, pictures: list[str]) -> bytes:
    """A chat with these pictures, as clients of this path send it."""
    urls = [f"data:image/png;base64,{each}" for each in pictures]
    text = {"type": "text", "text": "What is this?"}
    content: list[object]
    match path:
        case "/v1/chat/completions":
            content = [text, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
        case "/v1/responses":
            content = [{"type": "input_text", "text": "What is this?"}]
            content += [{"type": "input_image", "image_url": url} for url in urls]
        case "/v1/messages":
            source = {"type": "base64", "media_type": "image/png"}
            content = [text]
            content += [{"type": "image", "source": {**source, "data": each}} for each in pictures]
        case "/api/chat":
            message = {"role": "user", "content": "What is this?", "images": pictures}
            return json.dumps({"model": "m", "stream": False, "messages": [message]}).encode()
        case _:
            content = [text, *({"type": "image", "image": url} for url in urls)]
    name = "input" if path == "/v1/responses" else "messages"
    message = {"role": "user", "content": content}
    return json.dumps({"model": "m", "max_tokens": 9, name: [message]}).encode()


async def _emptied(relay: Relay) -> None:
    """Answer the jobs that other cases have left behind in the queue of all surfaces."""
    while (claim := await relay.start_next("scripted.chat", "w1")) is not None:
        await relay.run(claim, Delta(content="a word"))


async def _seen(at: Scene, pictures: list[str]) -> Outcome:
    """A chat with these pictures on every surface, one after the other, each of them answered."""
    found: Counter[str] = Counter()
    async with relay_on(at.redis.url) as relay:
        await _emptied(relay)
        for path in CHATS:
            calling = asyncio.create_task(sent(at, path, asked(path, pictures)))
            await relay.run(await until_claimed(relay), Delta(content="a picture"))
            found[(await calling)[0]] += 1
    return all_are(found, {"200", "202"})


async def waiting(at: Scene) -> Outcome:
    """Large chats of each surface that wait for their answers together."""
    bodies = {path: asked(path, [picture(at.many(24 * MIB))]) for path in CHATS}
    before = memory(at.pid, "VmRSS")
    async with relay_on(at.redis.url) as relay:
        await _emptied(relay)
        calls, claims = [], []
        for path in (*CHATS, *CHATS):
            calls.append(asyncio.create_task(sent(at, path, bodies[path])))
            claims.append(await until_claimed(relay))
        await asyncio.sleep(1)
        held_mib = (memory(at.pid, "VmRSS") - before) / MIB
        for claim in claims:
            await relay.run(claim, Delta(content="a picture"))
        found = Counter([status for status, _ in await asyncio.gather(*calls)])
    outcome = all_are(found, {"200", "202"})
    return Outcome(f"{outcome.said}, {held_mib:.0f} MiB held", outcome.is_kept and held_mib < 64)


async def one_picture(at: Scene) -> Outcome:
    return await _seen(at, [picture(at.many(30 * MIB))])


async def many_pictures(at: Scene) -> Outcome:
    return await _seen(at, [picture(at.many(300 * 1024))] * 100)


CASES = [
    Case("a picture of 22 MB", one_picture, 4 * 30),
    Case("a hundred pictures of 220 KB", many_pictures, 4 * 30),
    Case("ten pictures of 18 MB that wait", waiting, 6 * 24),
]
