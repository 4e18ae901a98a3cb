"""The real sd-server with a tiny model of random weights; skipped loudly where none is built.

It takes six minutes to build, so `LLM_FLEET_REAL=require` leaves it out:
`LLM_FLEET_REAL_SD=require` makes a missing one a failure.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.images import collected, pictures, size_of
from support.processes import worker
from support.relay import relay_on

from contract.errors import (
    BackendRejected,
)
from contract.events import Done
from contract.images import ImageRequest
from contract.result import fold
from fleet.real.run_sd_server import running_sd_server
from fleet.real.sd_server import NotBuilt, find
from fleet.real.serving import RealServer
from workers.backends.diffusion.a1111 import A1111
from workers.backends.diffusion.sdcpp import MODEL, Sdcpp
from workers.backends.discovery import discover
from workers.scripted.picture import png

pytestmark = pytest.mark.real
LONG = 40
"""Steps that take some seconds."""


@pytest.fixture(scope="session")
def sd_server() -> Iterator[RealServer]:
    """The server; without its binary the test is skipped, or fails where it is required."""
    try:
        find()
    except NotBuilt as missing:
        reason = f"NO REAL SD-SERVER, NOTHING IS PROVED: {missing}"
        if os.environ.get("LLM_FLEET_REAL_SD") == "require":
            pytest.fail(reason)
        pytest.skip(reason)
    with running_sd_server() as server:
        yield server


@asynccontextmanager
async def speaking_to(server: RealServer) -> AsyncIterator[Sdcpp]:
    backend = Sdcpp("sd", server.root)
    try:
        yield backend
    finally:
        await backend.aclose()


def cat(**fields: Any) -> ImageRequest:
    return ImageRequest(
        **{"model": MODEL, "prompt": "a cat", "width": 64, "height": 64, "seed": 7, "steps": 1}
        | fields
    )


async def test_it_is_found_and_tells_what_it_can(sd_server: RealServer) -> None:
    async with speaking_to(sd_server) as backend:
        await backend.check()
        [report] = await backend.models()
        [config] = await discover((sd_server.port,))

    assert (report.name, report.traits, report.warm) == (MODEL, ("image",), True)
    assert (config.type, config.url) == ("sd", sd_server.root)


async def test_words_become_a_png_and_a_seed_repeats_it(sd_server: RealServer) -> None:
    async with speaking_to(sd_server) as backend:
        one, again, other = [await collected(backend.image(cat(seed=seed))) for seed in (7, 7, 8)]

    assert size_of(pictures(one)[0]) == (64, 64)
    assert pictures(one) == pictures(again) != pictures(other)
    assert one[-1] == Done()


async def test_without_a_seed_every_picture_is_another_one(sd_server: RealServer) -> None:
    async with speaking_to(sd_server) as backend:
        one, two = [await collected(backend.image(cat(seed=None))) for _ in range(2)]

    assert pictures(one) != pictures(two)


async def test_a_picture_is_made_from_another_one(sd_server: RealServer) -> None:
    async with speaking_to(sd_server) as backend:
        start = "data:image/png;base64," + base64.b64encode(png("a dog", 64, 64)).decode()
        little = await collected(backend.image(cat(image=start, strength=0.2, steps=4)))
        much = await collected(backend.image(cat(image=start, strength=0.9, steps=4)))

    assert size_of(pictures(little)[0]) == size_of(pictures(much)[0]) == (64, 64)
    assert pictures(little) != pictures(much)
    assert little[-1].ignored == ()


async def test_several_come_in_the_format_that_was_asked_for(sd_server: RealServer) -> None:
    async with speaking_to(sd_server) as backend:
        events = await collected(backend.image(cat(count=2, mime_type="image/jpeg")))
        images = [event for event in events if event.type == "image"]

    assert [(image.index, image.mime_type) for image in images] == [
        (0, "image/jpeg"),
        (1, "image/jpeg"),
    ]
    assert all(picture.startswith(b"\xff\xd8\xff") for picture in pictures(events))


async def test_a_format_that_it_was_not_built_with_is_ignored(sd_server: RealServer) -> None:
    async with speaking_to(sd_server) as backend:
        events = await collected(backend.image(cat(mime_type="image/webp")))

    assert size_of(pictures(events)[0]) == (64, 64)
    assert events[-1].ignored == ("mime_type",)


async def test_an_image_that_is_none_is_rejected(sd_server: RealServer) -> None:
    async with speaking_to(sd_server) as backend:
        with pytest.raises(BackendRejected, match="invalid generation parameters"):
            await collected(backend.image(cat(image="iVBORw0KGgpub3QgYW4gaW1hZ2U=")))


async def test_a_waiting_job_is_taken_out_of_the_queue_and_a_running_one_let_go(
    sd_server: RealServer,
) -> None:
    async with speaking_to(sd_server) as backend:
        async with aclosing(backend.image(cat(steps=LONG))) as running:
            while (await anext(running)).type != "phase":
                pass
            waiting = backend.image(cat())
            assert (await anext(waiting)).status == "number 1 in the queue of the server"
            await waiting.aclose()
            async with aclosing(backend.image(cat())) as next_one:
                # Had the one before stayed, this would be number 2.
                assert (await anext(next_one)).status == "number 1 in the queue of the server"
            async with asyncio.timeout(1):
                await running.aclose()
        after = await collected(backend.image(cat()))

    assert size_of(pictures(after)[0]) == (64, 64)


async def test_a_picture_comes_through_the_whole_fleet(
    redis_url: str, tmp_path: Path, sd_server: RealServer
) -> None:
    dsn = {"LLM_SD": sd_server.root.replace("http://", "sd://")}
    with worker(redis_url, tmp_path, "sd", **dsn) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            record, _ = await relay.queue.enqueue(cat(), queue="sd.image")
            result = fold(frame.event for frame in await relay.frames(record.id))
            [image] = result.images

            assert result.status == "done"
            assert image.data is not None
            assert size_of(base64.b64decode(image.data)) == (64, 64)


async def test_a_cancel_ends_the_job_while_the_server_still_draws(
    redis_url: str, tmp_path: Path, sd_server: RealServer
) -> None:
    dsn = {"LLM_SD": sd_server.root.replace("http://", "sd://")}
    with worker(redis_url, tmp_path, "sd", **dsn) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            record, _ = await relay.queue.enqueue(cat(steps=LONG), queue="sd.image")
            async with asyncio.timeout(10):
                while (await relay.records.get(record.id)).status == "queued":
                    await asyncio.sleep(0.01)
            await relay.queue.cancel(record.id, by="caller")
            after, _ = await relay.queue.enqueue(cat(), queue="sd.image")
            async with asyncio.timeout(60):
                result = fold(frame.event for frame in await relay.frames(after.id))

            assert (await relay.records.get(record.id)).status == "cancelled"
            assert result.status == "done"


async def test_the_part_of_a1111s_api_that_it_speaks_makes_a_picture(sd_server: RealServer) -> None:
    backend = A1111("a1111", sd_server.root, poll_s=0.05)
    [report] = await backend.models()
    events = await collected(backend.image(cat(model=report.name)))
    start = base64.b64encode(pictures(events)[0]).decode()
    again = await collected(
        backend.image(cat(model=report.name, image=start, strength=0.5, count=2))
    )
    await backend.aclose()

    assert size_of(pictures(events)[0]) == size_of(pictures(again)[0]) == (64, 64)
    assert events[-1].ignored == ()
    assert again[-1].ignored == ("count",)  # it does not know n_iter
