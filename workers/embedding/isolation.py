"""Finds the text that made a request fail, by bisection, so that only its job fails (openrag #465).

- Groups that fail are halved until each has texts of one job only. That job fails, the others do
  not.
- An error that may have any cause (`OF_ANY`) is searched within one job too: the rest of its texts
  may work, and the one that fails is sent alone the next time.
- An error about a text (`OF_A_TEXT`) is searched down to the text, whose number is in the message.
- If four groups or more all fail with an error that may be the server's, or that refuses the
  options, the search ends: all jobs fail with it, and each is retried by its own rules.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

from contract.errors import (
    BackendError,
    BackendRejected,
    BackendUnreachable,
    BadAnswer,
    ConnectionDropped,
    ContextExceeded,
    InputTooLarge,
    NotFinite,
    Refused,
    ServerFault,
    TruncatedStream,
)
from workers.embedding.text_queue import EmbedJob, QueuedText

OF_A_TEXT: Final = (BackendRejected, ContextExceeded, InputTooLarge, NotFinite, Refused)
"""Errors about one text or its vector."""
OF_ANY: Final = (BadAnswer, ServerFault, TruncatedStream)
"""Errors that a text may have caused, or not."""
_NUMBER: Final = re.compile(r"^(?:input|tokens)\[\d+\]")


def fail_jobs(
    texts: Sequence[QueuedText], error: BackendError, *, is_suspect: bool = False
) -> list[EmbedJob]:
    """Fail all jobs that need one of the texts; returns them.

    `is_suspect`: a request with this text alone has failed before.
    """
    failed: dict[EmbedJob, None] = {}
    if isinstance(error, ConnectionDropped) and len({o for text in texts for o in text.jobs}) > 1:
        # The text is not known, so it does not count as an attempt of any job.
        error = BackendUnreachable(error.message, scope=error.scope)
    for text in texts:
        for job, rows in text.jobs.items():
            if job in failed:
                continue
            is_one = len(texts) == 1 and (is_suspect or _is_its_own(job, error))
            message = _numbered(error.message, rows) if is_one else error.message
            if len(job.texts) == 1:
                message = error.message
            job.fail(copied(error, message, is_echo=bool(failed)))
            failed[job] = None
    return list(failed)


def _is_its_own(job: EmbedJob, error: BackendError) -> bool:
    """Whether one text is the cause: by the error, or because other texts of the job worked."""
    has_worked = job.left_texts < len(job.texts)
    return isinstance(error, OF_A_TEXT) or (isinstance(error, OF_ANY) and has_worked)


def fail_with_defect(texts: Iterable[QueuedText], error: BaseException) -> None:
    """Fail all jobs that need one of the texts with an unexpected exception."""
    for text in texts:
        for job in text.jobs:
            job.fail(error)


def _numbered(message: str, rows: Sequence[int]) -> str:
    """The message with the text's number in its job; the adapter's is the number in the request."""
    number = f"input[{rows[0]}]"
    return _NUMBER.sub(number, message) if _NUMBER.match(message) else f"{number}: {message}"


def copied(error: BackendError, message: str, *, is_echo: bool) -> BackendError:
    """A copy of the error for one job: one exception raised twice has both tracebacks."""
    copy = type(error)(
        message,
        upstream_status=error.upstream_status,
        retry_after_s=error.retry_after_s,
        scope=error.scope,
    )
    copy.is_echo = is_echo
    return copy


_OF_ALL: Final = (*OF_ANY, BackendRejected, NotFinite)
_GROUPS: Final = 4

Send = Callable[[Sequence[QueuedText]], Awaitable[None]]
Fail = Callable[[Sequence[QueuedText], BackendError], None]
Group = tuple[Sequence[QueuedText], BackendError]
"""Texts of a request that failed, and its error."""


class Isolation:
    """One search."""

    def __init__(self, send: Send, fail: Fail) -> None:
        """`send` embeds texts or raises BackendError; `fail` fails the jobs of texts."""
        self._send = send
        self._fail = fail

    async def run(self, texts: Sequence[QueuedText], error: BackendError) -> None:
        """Search the texts of a failed request; embeds the good ones, fails the jobs of the bad."""
        groups = await self._to_search([(texts, error)])
        while groups:
            halves = list(_halves(groups))
            failed = [(half, why) for half in halves if (why := await self._try(half))]
            if len(halves) >= _GROUPS and len(failed) == len(halves) and _is_general(failed):
                for group, why in failed:
                    self._fail(_pending(group), why)
                return
            groups = await self._to_search(failed)

    async def _to_search(self, groups: Sequence[Group]) -> list[Group]:
        """The groups to halve further; the jobs of the others are failed."""
        mixed: list[Group] = []
        for group, error in groups:
            texts = _pending(group)
            jobs = {job for text in texts for job in text.jobs}
            of_several = len(jobs) > 1 and isinstance(error, OF_A_TEXT)
            if len(texts) > 1 and (of_several or isinstance(error, OF_ANY)):
                mixed.append((texts, error))
            else:
                await self._narrow(texts, error)
        return mixed

    async def _narrow(self, texts: Sequence[QueuedText], error: BackendError) -> None:
        """Fail the jobs of a group; an error about a text is searched down to it."""
        while len(texts) > 1 and isinstance(error, OF_A_TEXT):
            first, second = texts[: len(texts) // 2], texts[len(texts) // 2 :]
            failure = await self._try(first)
            texts, error = (second, error) if failure is None else (first, failure)
            texts = _pending(texts)
        self._fail(texts, error)

    async def _try(self, texts: Sequence[QueuedText]) -> BackendError | None:
        texts = _pending(texts)
        if not texts:
            return None
        try:
            await self._send(texts)
        except BackendError as error:
            return error
        return None


def _halves(groups: Sequence[Group]) -> Iterator[Sequence[QueuedText]]:
    for texts, _ in groups:
        yield texts[: len(texts) // 2]
        yield texts[len(texts) // 2 :]


def _pending(texts: Sequence[QueuedText]) -> list[QueuedText]:
    return [text for text in texts if text.jobs]


def _is_general(failed: Sequence[Group]) -> bool:
    return all(isinstance(error, _OF_ALL) for _, error in failed)
