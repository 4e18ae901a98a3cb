"""Cursors that the log does not contain, because Redis lost events, get `log_reset`."""

import pytest
from support.relay import words
from support.shim import CHAT, Stage, sse, stage

from contract.events import Cursor, EventId


async def finished(at: Stage) -> str:
    """A job that has said some words and ended."""
    await at.announce()
    job: str = (await at.http.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]
    await at.relay.run(await at.relay.claim(), *words(5))
    return job


async def told(at: Stage, job: str, cursor: str) -> list[str]:
    async with at.events(job, params={"after": cursor}) as response:
        return [event["type"] async for event in sse(response)]


async def test_a_cursor_from_the_future_gets_log_reset_and_the_whole_log(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at)
        whole = await told(at, job, "0-0")

        assert ["log_reset", *whole] == await told(at, job, "1-900")
        assert ["log_reset", *whole] == await told(at, job, "7-0")


async def test_a_cursor_of_another_attempt_of_that_number_gets_log_reset(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at)
        whole = await told(at, job, "0-0")

        assert ["log_reset", *whole] == await told(at, job, "1-3.0badcafe")


async def test_an_exact_cursor_continues_where_it_was(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at)
        nonce = next(e["nonce"] for e in await at.heard(job) if e["type"] == "started")

        assert await told(at, job, f"1-4.{nonce}") == ["delta", "delta", "done"]


async def test_a_client_that_saw_the_end_receives_nothing_more(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at)
        last = (await at.heard(job))[-1]["id"]

        assert (await at.http.get(f"/api/v1/jobs/{job}/events?after={last}")).status_code == 204


@pytest.mark.parametrize("text", ["1", "1-", "-1", "1-2.", "1-2.xyz", "1-2.AB", "one-two", "1-2-3"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="looks like 2-17"):
        Cursor.parse(text)


def test_a_cursor_reads_what_it_writes() -> None:
    for cursor in (Cursor(EventId(2, 17)), Cursor(EventId(2, 17), "c0ffee42")):
        assert Cursor.parse(str(cursor)) == cursor
