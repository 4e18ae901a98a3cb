"""Ctrl-C while jobs run: the first one detaches from them, a second one within 3 s cancels them."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from contract.errors import FleetError
from fleet.cli.terminal import Terminal
from fleet.client.job import AsyncJob

Answer = TypeVar("Answer")

SECOND_WITHIN_S = 3.0
_CANCEL_WITHIN_S = 10.0


async def detachable(
    work: Coroutine[Any, Any, Answer],
    jobs: Callable[[], Iterable[AsyncJob]],
    terminal: Terminal,
) -> Answer:
    """The result of `work`; after Ctrl-C detaches from or cancels its jobs.

    `jobs` returns the jobs that are running at that moment. Raises KeyboardInterrupt after Ctrl-C.
    """
    interrupts: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupts.put_nowait, None)
    doing = asyncio.create_task(work)
    interrupted = asyncio.create_task(interrupts.get())
    try:
        await asyncio.wait({doing, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        running = list(jobs())
        await _ended(doing)
        await _detach(running, interrupts, terminal)
    finally:
        await _ended(doing)
        await _ended(interrupted)
        loop.remove_signal_handler(signal.SIGINT)
    raise KeyboardInterrupt


async def _detach(
    jobs: list[AsyncJob], interrupts: asyncio.Queue[None], terminal: Terminal
) -> None:
    if not jobs:
        return
    for job in jobs:
        terminal.message(
            f"job {job.id} continues without this terminal: follow it with `fleet jobs watch "
            f"{job.id}`, cancel it with `fleet jobs cancel {job.id}`"
        )
    terminal.message(f"Ctrl-C again within {SECOND_WITHIN_S:g} s cancels", style="bold")
    try:
        async with asyncio.timeout(SECOND_WITHIN_S):
            await interrupts.get()
    except TimeoutError:
        return
    for job in jobs:
        await cancel(job, terminal)


async def cancel(job: AsyncJob, terminal: Terminal) -> None:
    """Cancel a job and print its final state; a failure is printed, too."""
    try:
        async with asyncio.timeout(_CANCEL_WITHIN_S):
            view = await job.cancel()
    except (FleetError, TimeoutError) as error:
        why = str(error) or "no response"
        terminal.message(f"could not cancel job {job.id} ({why}): `fleet jobs cancel {job.id}`")
    else:
        terminal.message(f"job {job.id}: {view.status}")


async def _ended(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
