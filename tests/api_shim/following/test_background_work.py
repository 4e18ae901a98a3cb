"""Loops of a shim: a defect starts them again, their end and the process's end them."""

import asyncio
import logging

import pytest

from api_shim.following import background_work
from api_shim.following.background_work import cancelled, restart_on_defect, running


@pytest.mark.parametrize("defect", [ValueError("damaged"), ArithmeticError("ours")])
async def test_a_loop_that_broke_runs_again_until_it_returns(
    defect: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background_work, "_RESTART_S", 0.0)
    broken: list[Exception] = []

    async def loop() -> None:
        if not broken:
            broken.append(defect)
            raise defect

    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(restart_on_defect(loop), 5)

    assert broken == [defect]
    assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [defect]
    assert "loop broke, and is started again" in caplog.text


async def test_work_has_ended_when_its_context_closes() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def loop() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    async with asyncio.timeout(5), running(restart_on_defect(loop)):
        await begun.wait()

    assert ended.is_set()


async def test_tasks_are_cancelled_and_have_ended_whatever_they_raise() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while it ends")

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.Event().wait())]
    await asyncio.sleep(0)
    await cancelled(tasks)

    assert [task.done() for task in tasks] == [True, True]
