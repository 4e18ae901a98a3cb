"""A worker is killed in the middle of an answer on every surface at once: what each client reads.

One scene for all tests: its clients ask one worker, which dies, and another one takes over.
"""

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.processes import worker
from support.redis_server import RedisServer
from support.relay import relay_on
from support.shim import serving
from support.stream_grammar import Heard
from support.surfaces import SURFACES, Client, Surface, ask, resume

from workers.scripted.script import Prompt, generate, parse

LEASE = {
    "FLEET_LEASE_S": "1",
    "FLEET_RENEW_S": "0.3",
    "FLEET_REAP_S": "0.3",
    "LLM_SCRIPTED": "scripted://?slots=64",
}
HERE = {"X_Fleet_Backend": "scripted"}
TEXT = "".join(generate(parse("scripted-story:chunks=60"), Prompt()).content)
PLAIN = {"chat": "scripted-story:chunks=60,rate=20", "image": "scripted-image:chunks=60,rate=20"}
"""Text that another worker continues, and an image, which it cannot."""
THOUGHTS = {"chat": "scripted-think:think=2,chunks=50,rate=20", "image": PLAIN["image"]}
"""An answer that began with thoughts starts over."""


@dataclass(frozen=True)
class Scene:
    """What was read, by the names of surfaces."""

    plain: dict[str, Heard]
    thoughtful: dict[str, Heard]
    resumed: dict[str, tuple[str, Heard]]
    """The text of a client that left before the death, and what it read when it came back."""
    whole: dict[str, str]


async def _played(redis_url: str, folder: Path) -> Scene:
    with serving(redis_url) as url, worker(redis_url, folder, **LEASE) as first:
        async with (
            relay_on(redis_url) as relay,
            httpx.AsyncClient(base_url=url, timeout=60) as http,
        ):
            await first.ready(relay)
            plain = {s.name: ask(s, http, "tell", PLAIN[s.kind], **HERE) for s in SURFACES}
            thoughtful = {s.name: ask(s, http, "tell", THOUGHTS[s.kind], **HERE) for s in SURFACES}
            whole = [
                asyncio.create_task(surface.whole(http, "tell", PLAIN[surface.kind], **HERE))
                for surface in SURFACES
            ]
            left = [await _left(surface, http) for surface in SURFACES if surface.resumes]
            for client in (*plain.values(), *thoughtful.values()):
                await client.until(lambda heard: heard.text)
            # At once: another worker may take longer to start than an answer to be told.
            first.send(signal.SIGKILL)
            with worker(redis_url, folder, **LEASE) as second:
                await second.ready(relay)
                texts = await asyncio.gather(*whole)
                return Scene(
                    {name: await client.ended() for name, client in plain.items()},
                    {name: await client.ended() for name, client in thoughtful.items()},
                    {surface.name: await _back(surface, http, client) for surface, client in left},
                    {surface.name: text for surface, text in zip(SURFACES, texts, strict=True)},
                )


async def _left(surface: Surface, http: httpx.AsyncClient) -> tuple[Surface, Client]:
    client = ask(
        surface, http, "tell", PLAIN[surface.kind], X_Fleet_On_Disconnect="continue", **HERE
    )
    await client.until(lambda heard: heard.text)
    await client.leave()
    return surface, client


async def _back(surface: Surface, http: httpx.AsyncClient, client: Client) -> tuple[str, Heard]:
    before = client.heard
    return before.text, await resume(surface, http, client.job, before.cursors[-1]).ended()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("fleet")
    redis = RedisServer(folder)
    try:
        yield asyncio.run(_played(redis.url, folder))
    finally:
        redis.stop()


def surfaces(*, kind: str = "chat", native: bool | None = None) -> pytest.MarkDecorator:
    chosen = [s for s in SURFACES if s.kind == kind and native in {None, s.is_native}]
    return pytest.mark.parametrize("surface", chosen, ids=lambda each: each.name)


@surfaces()
def test_an_answer_that_another_worker_continues_has_no_seam(
    surface: Surface, scene: Scene
) -> None:
    heard = scene.plain[surface.name]

    assert (heard.text, heard.end) == (TEXT, "done")


@surfaces(native=True)
def test_an_answer_that_starts_over_is_read_anew(surface: Surface, scene: Scene) -> None:
    heard = scene.thoughtful[surface.name]

    assert heard.types.count("reset") == 1
    assert (len(heard.text.split()), heard.end) == (50, "done")


@surfaces(native=False)
def test_an_answer_that_starts_over_ends_a_stream_that_cannot_say_so(
    surface: Surface, scene: Scene
) -> None:
    heard = scene.thoughtful[surface.name]

    assert heard.text
    assert (heard.end, heard.code) == ("error", "answer_restarted")


@surfaces(kind="image")
def test_an_image_of_which_a_preview_was_sent_ends_its_stream(
    surface: Surface, scene: Scene
) -> None:
    heard = scene.plain[surface.name]

    assert (heard.end, heard.code) == ("error", "answer_restarted")


@surfaces()
def test_a_response_that_is_not_streamed_is_whole(surface: Surface, scene: Scene) -> None:
    assert scene.whole[surface.name] == TEXT


def test_a_client_that_comes_back_after_the_death_reads_the_rest(scene: Scene) -> None:
    assert scene.resumed
    for before, rest in scene.resumed.values():
        assert (before + rest.text, rest.end) == (TEXT, "done")
