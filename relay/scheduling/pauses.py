"""Pauses and run windows of queues: while a queue is paused, none of its jobs starts.

`redis_keys.schedule` holds what admins want: a pause, and run windows. `redis_keys.paused` holds
what is true now, for the scripts that claim and assign jobs, and expires when the pause ends, so
that Redis itself ends it on time. Both have the queue's hash tag and are changed by one script,
which refuses a change of a schedule that is not what was read. The maintainer compares the two with
the time at each pass (`keep`), pauses queues whose windows have closed, and wakes those that run
again. Time is Redis's (docs/adr/0051).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Final

from pydantic import Field, ValidationError

from contract import redis_keys
from contract.errors import RelayUnavailable
from contract.roster import QueuePause
from contract.wire import WireModel, decode, encode
from relay.connection import Connection
from relay.scheduling.run_windows import RunWindow, opening_after, parsed_all, state_at
from relay.scripts import queues

_log = logging.getLogger(__name__)

_TRIES: Final = 10
"""Changes of one schedule at the same time, at most."""
_OTHER_TYPE: Final = "WRONGTYPE"
"""Begins what `queues.wake` returns for a schedule that is no string."""


class _Pause(WireModel):
    """An admin's pause, as it is stored."""

    since: float
    until: float | None = None
    reason: Annotated[str, Field(max_length=200)] = ""


class Schedule(WireModel):
    """What admins want of a queue, as it is stored."""

    pause: _Pause | None = None
    windows: tuple[str, ...] = ()
    """As in `22:00-06:00 Europe/Berlin`."""
    configured: tuple[str, ...] | None = None
    """The windows that a configuration has set last: they are set again only once it changes."""

    @property
    def text(self) -> str:
        """As it is stored; empty: it says nothing."""
        return encode(self).decode() if self != Schedule() else ""


class QueuePauses:
    """Changes schedules of queues and applies them."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def pause(
        self, queue: str, *, until: float | None = None, reason: str = ""
    ) -> QueuePause | None:
        """Start no more jobs of a queue, until a time (unix seconds) or until it is resumed.

        Replaces an earlier pause, and keeps its beginning. Returns the pause that holds now, None
        if `until` has passed. Raises RelayUnavailable.
        """

        def paused(schedule: Schedule, now: float) -> Schedule:
            since = now if schedule.pause is None else schedule.pause.since
            pause = _Pause(since=round(since, 3), until=until, reason=reason)
            return schedule.model_copy(update={"pause": pause})

        return await self._change(queue, paused)

    async def resume(self, queue: str) -> QueuePause | None:
        """End an admin's pause; returns that of the run windows, if they are closed.

        Then have the queue woken. Raises RelayUnavailable.
        """
        return await self._change(queue, lambda it, _: it.model_copy(update={"pause": None}))

    async def set_windows(self, queue: str, windows: Sequence[str]) -> QueuePause | None:
        """Replace a queue's run windows (`parsed` of run_windows.py); none: it always runs.

        Returns the pause that holds now. Then have the queue woken. Raises RelayUnavailable.
        """
        wanted = {"windows": tuple(windows)}
        return await self._change(queue, lambda it, _: it.model_copy(update=wanted))

    async def configure(self, queue: str, windows: Sequence[str]) -> QueuePause | None:
        """Set a queue's run windows, unless they have been set from the same configuration before.

        So what an admin changes later holds, whoever restarts, until the configuration changes.
        Returns the pause that holds now. Then have the queue woken. Raises RelayUnavailable.
        """
        wanted = tuple(windows)

        def configured(schedule: Schedule, _: float) -> Schedule:
            if schedule.configured == wanted:
                return schedule
            return schedule.model_copy(update={"windows": wanted, "configured": wanted})

        return await self._change(queue, configured)

    async def windows(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The run windows of these queues; raises RelayUnavailable."""
        keys = [redis_keys.schedule(name) for name in names]
        found = await self._connection.command("MGET", *keys) if keys else []
        return {
            name: schedule_in((text or b"").decode(errors="replace")).windows
            for name, text in zip(names, found, strict=True)
        }

    async def keep(self, queue: str, seen: str, why: str) -> bool:
        """Pause or resume a queue as its schedule wants it now.

        `seen` is what `redis_keys.schedule` holds, `why` what `redis_keys.paused` does. Returns
        whether anything was changed; raises RelayUnavailable.
        """
        if not seen and not why:
            return False
        stored, now = self._read(queue, seen), await self._now()
        schedule = _without_old_pause(stored, now)
        wanted = pause_at(schedule, now)
        # What a newer version wrote may read like nothing: it is kept as it is.
        text = schedule.text if stored != schedule else seen
        if text == seen and _text(wanted) == why:
            return False
        if not await self._apply(queue, seen, text, wanted):
            return False
        if bool(wanted) != bool(why):
            _log.info("queue %s: %s", queue, wanted.text if wanted else "it runs again")
        return True

    async def without(self, queue: str, lost: str) -> list[str]:
        """What is to be stored in place of a queue's damaged schedule or paused, the key `lost`.

        A queue that is paused stays so, until an admin resumes it. Empty: nothing. Raises
        RelayUnavailable.
        """
        key = redis_keys.schedule(queue)
        others = [each for each in (key, redis_keys.paused(queue)) if each != lost]
        (text,) = await self._connection.replies([("GET", others[0])])
        if not text:
            return []
        now = await self._now()
        if lost == key:
            pause = _Pause(since=round(now, 3), reason="its schedule was damaged: resume it")
            return [Schedule(pause=pause).text]
        wanted = _text(pause_at(self._read(queue, text.decode(errors="replace")), now))
        return [wanted] if wanted else []

    async def _change(
        self, queue: str, change: Callable[[Schedule, float], Schedule]
    ) -> QueuePause | None:
        for _ in range(_TRIES):
            text = await self._connection.command("GET", redis_keys.schedule(queue)) or b""
            stored, now = self._read(queue, text.decode(errors="replace")), await self._now()
            new = change(_without_old_pause(stored, now), now)
            wanted = pause_at(new, now)
            if await self._apply(queue, text, new.text, wanted):
                return wanted
        raise RelayUnavailable(f"queue {queue} was changed by others at the same time: try again")

    def _read(self, queue: str, text: str) -> Schedule:
        """A schedule as it is stored; the log says which one cannot be read, and says nothing."""
        schedule = schedule_in(text)
        with self._connection.passing_over(redis_keys.schedule(queue)):
            if text and schedule == Schedule():
                is_other_type = text.startswith(_OTHER_TYPE)
                raise ValueError(
                    text if is_other_type else "it cannot be read here, and says nothing"
                )
            parsed_all(schedule.windows)
        return schedule

    async def _apply(
        self, queue: str, seen: str | bytes, new: str, wanted: QueuePause | None
    ) -> bool:
        until = None if wanted is None else wanted.until
        return await self._connection.call(queues.schedule(queue, seen, new, _text(wanted), until))

    async def _now(self) -> float:
        seconds, microseconds = await self._connection.command("TIME")
        return int(seconds) + int(microseconds) / 1e6


def pause_at(schedule: Schedule, now: float) -> QueuePause | None:
    """Why a queue with this schedule is paused at a time (unix seconds); None: it runs."""
    windows, pause = _windows(schedule), _without_old_pause(schedule, now).pause
    if pause is not None:
        until = pause.until
        if until is not None and windows:
            until = opening_after(windows, until)
        return QueuePause(by="admin", reason=pause.reason, since=pause.since, until=until)
    if not windows:
        return None
    state = state_at(windows, now)
    if state.is_open:
        return None
    return QueuePause(by="windows", since=state.since, until=state.until)


def pause_in(text: str) -> QueuePause | None:
    """Read what `redis_keys.paused` holds; a text that a newer version wrote is a pause, too."""
    if not text:
        return None
    try:
        return decode(QueuePause, text)
    except ValidationError:
        return QueuePause(by="admin")


def schedule_in(text: str) -> Schedule:
    """Read what `redis_keys.schedule` holds; one that cannot be read says nothing."""
    try:
        return decode(Schedule, text) if text else Schedule()
    except ValidationError:
        return Schedule()


def _windows(schedule: Schedule) -> tuple[RunWindow, ...]:
    try:
        return parsed_all(schedule.windows)
    except ValueError:
        # A newer version wrote it, or this machine has no such time zone: `_read` has named it.
        return ()


def _without_old_pause(schedule: Schedule, now: float) -> Schedule:
    """The schedule without a pause that has ended."""
    pause = schedule.pause
    if pause is None or pause.until is None or pause.until > now:
        return schedule
    return schedule.model_copy(update={"pause": None})


def _text(pause: QueuePause | None) -> str:
    return "" if pause is None else encode(pause).decode()
