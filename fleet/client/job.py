"""A job handle: follow its events through any shim, wait for its result, cancel it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

from typing_extensions import override

from contract.errors import FleetError, JobError, JobNotFound
from contract.events import (
    BEGINNING,
    LAST_WORDS,
    AnyEvent,
    Delta,
    EventId,
    Frame,
    LogReset,
    Reset,
)
from contract.jobs import JobAccepted, JobView
from contract.result import Fold, Result
from contract.sse import EventStream
from fleet.client.answers import answer_of, error_class
from fleet.client.errors import AnswerRestarted, GaveUpWaiting, JobCancelled, JobEnded
from fleet.client.reconnect import FollowState, RetryTimer
from fleet.client.transport import NO_ANSWER, Shims

Answer = TypeVar("Answer")

_TASK_PAUSE_S = 0.1


class FrameDecoder(EventStream[Frame]):
    """Decodes the event stream of one connection: bytes in pieces of any size, frames out.

    Raises ValueError for an id that is not `<attempt>-<seq>`, BadEndpoint for an event over the
    limit.
    """

    __slots__ = ()

    @override
    def _made(self, name: str, id: bytes, data: bytes) -> Frame:
        return Frame(EventId.parse(id.decode()) if id else None, name, data)


class AsyncJob:
    """A handle on a job; it has a connection only while one of its generators runs.

    Every method that sends a request raises JobNotFound, NotAuthorised or FleetUnreachable.
    """

    def __init__(
        self,
        shims: Shims,
        job_id: str,
        accepted: JobAccepted | None = None,
        *,
        given_as: str | None = None,
    ) -> None:
        """Store `accepted`, the response to the enqueue, if there was one.

        `given_as` is the id as the caller gave it, which errors name.
        """
        self._shims = shims
        self.id = job_id
        self._given_as = given_as or job_id
        self.accepted = accepted
        self._path = f"/api/v1/jobs/{quote(job_id, safe='')}"

    async def pages(self, after: EventId = BEGINNING) -> AsyncGenerator[list[Frame], None]:
        """Yield the frames after an event id up to the terminal event, in lists as they arrived.

        After a lost connection it reconnects behind the last frame, to the next shim if there are
        several. Raises JobNotFound, and FleetUnreachable after `give_up_s` without a response.
        """
        seen = FollowState(after)
        retries = self._shims.retry_timer()
        while True:
            began_at = seen.last
            try:
                async with aclosing(self._connection(seen, retries)) as lists:
                    async for frames in lists:
                        yield frames
                if await self._is_over(seen, began_at):
                    return
                trouble: Exception = ConnectionError("the stream ended before the terminal event")
            except NO_ANSWER as error:
                trouble = error
            await self._shims.pause(retries, trouble)

    async def _connection(
        self, seen: FollowState, retries: RetryTimer
    ) -> AsyncGenerator[list[Frame], None]:
        decoder = FrameDecoder()
        params = {"after": str(seen.cursor)}
        first = True
        async with (
            self._naming_given_id(),
            self._shims.stream(f"{self._path}/events", params, "text/event-stream") as pieces,
        ):
            async for piece in pieces:
                frames = seen.new_frames(decoder.feed(piece))
                if frames or not first:
                    retries.reset()
                first = False
                if frames:
                    yield frames
                if seen.ended:
                    return

    async def _is_over(self, seen: FollowState, began_at: EventId) -> bool:
        """Whether a stream that ended cleanly left nothing to read after the cursor."""
        if seen.ended:
            return True
        return seen.last == began_at and (await self.view()).status in LAST_WORDS

    async def registered(self, timeout_s: float = 60.0) -> None:
        """Wait until a Celery message that was sent has become this job (docs/celery.md).

        Raises GaveUpWaiting if no worker has received it within `timeout_s`.
        """
        until = asyncio.get_running_loop().time() + timeout_s
        while True:
            try:
                await self.view()
            except JobNotFound:
                if asyncio.get_running_loop().time() > until:
                    raise GaveUpWaiting(
                        f"no worker has received task {self.id} within {timeout_s:g} s: is there "
                        "one for the queue that it was sent to?"
                    ) from None
                await asyncio.sleep(_TASK_PAUSE_S)
            else:
                return

    async def frames(self, after: EventId = BEGINNING) -> AsyncGenerator[Frame, None]:
        """Like `events`, with the id and the JSON of each event. Raises as `pages` does."""
        async with aclosing(self.pages(after)) as pages:
            async for page in pages:
                for frame in page:
                    yield frame

    async def events(self, after: EventId = BEGINNING) -> AsyncGenerator[AnyEvent, None]:
        """Yield every event after an id up to the terminal one, each once; reconnects if needed.

        Raises as `pages` does.
        """
        async with aclosing(self.frames(after)) as frames:
            async for frame in frames:
                yield frame.event

    async def words(self) -> AsyncGenerator[str, None]:
        """Yield the text of a chat in pieces; closing the generator early cancels the job.

        Raises AnswerRestarted, JobCancelled, and the error that the job failed with.
        """
        answer = Fold()
        try:
            async with aclosing(self.events()) as events:
                async for event in events:
                    if isinstance(event, (Reset, LogReset)) and answer.result.content:
                        raise AnswerRestarted(f"job {self.id}: {event.reason}; run it again")
                    answer.add(event)
                    if isinstance(event, Delta) and event.content:
                        yield event.content
            raise_unless_done(self.id, answer.result)
        finally:
            if answer.result.status not in LAST_WORDS:
                await self.cancel()

    async def result(self, timeout_s: float | None = None) -> Result:
        """The result, once the job is done.

        Raises the error that the job failed with, JobCancelled, and GaveUpWaiting after
        `timeout_s`; the job continues then.
        """
        result = await self.outcome(timeout_s)
        raise_unless_done(self.id, result)
        return result

    async def outcome(self, timeout_s: float | None = None) -> Result:
        """The result once the job has ended, also if it failed or was cancelled.

        Raises GaveUpWaiting after `timeout_s`.
        """
        return await with_time_limit(self._folded(), self, timeout_s)

    async def _folded(self) -> Result:
        answer = Fold()
        async with aclosing(self.events()) as events:
            async for event in events:
                answer.add(event)
        return answer.result

    async def view(self, wait_s: float | None = None) -> JobView:
        """The record of the job and its result so far; waits up to `wait_s` for its end."""
        params = {"wait_s": wait_s} if wait_s else None
        return answer_of(JobView, await self._request("GET", self._path, params))

    async def cancel(self) -> JobView:
        """Cancel the job in any phase; returns its final state. Can be repeated."""
        await self._request("DELETE", self._path)
        return await self.view()

    async def retry(self) -> "AsyncJob":
        """Run a dead letter again; returns the new job, the same one if repeated.

        Raises NotDead, JobNotFound, NoWorker, QueueFull.
        """
        accepted = answer_of(JobAccepted, await self._request("POST", f"{self._path}/retry"))
        return AsyncJob(self._shims, accepted.id, accepted)

    async def _request(
        self, method: str, path: str, params: Mapping[str, float] | None = None
    ) -> bytes:
        async with self._naming_given_id():
            return await self._shims.request(method, path, params=params)

    @asynccontextmanager
    async def _naming_given_id(self) -> AsyncGenerator[None]:
        """Raise JobNotFound with the id as the caller gave it."""
        try:
            yield
        except JobNotFound:
            if self._given_as == self.id:
                raise
            raise JobNotFound(
                f"there is no job {self._given_as[:64]}: an id has 32 hexadecimal digits, of "
                "which the first four or more are enough; nor is there a Celery task of that id"
            ) from None


async def with_time_limit(
    work: Awaitable[Answer], job: AsyncJob, timeout_s: float | None
) -> Answer:
    """The result of `work`; raises GaveUpWaiting after `timeout_s`; the job continues then."""
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError as error:
        if timeout_s is None:
            raise
        raise GaveUpWaiting(
            f"job {job.id} has not ended after {timeout_s:g} s; it continues: "
            f"follow it with `fleet jobs watch {job.id}`"
        ) from error


def raise_unless_done(job_id: str, result: Result) -> None:
    """Raise the error that a job failed with, or JobCancelled; return if it is done.

    The error has the class that its code stands for, as if it had been raised here.
    """
    if result.cancelled is not None:
        reason = result.cancelled.reason or "no reason given"
        raise JobCancelled(f"job {job_id} was cancelled by {result.cancelled.by}: {reason}")
    if result.error is not None:
        kind: type[FleetError] = error_class(result.error.code) or JobError
        raise kind(result.error.message)


def raise_job_ended(job_id: str, result: Result) -> None:
    """Like `raise_unless_done`, but raise JobEnded, which the command line has exit codes for."""
    if result.error is not None:
        what = f"job {job_id} failed ({result.error.code}): {result.error.message}"
        if result.error.dead:
            again = f"{what}; it is kept: `fleet dead retry {job_id}` runs it again"
            raise JobEnded(again, is_dead=True)
        raise JobEnded(what)
    if result.cancelled is not None:
        raise JobEnded(f"job {job_id} was cancelled by {result.cancelled.by}")
