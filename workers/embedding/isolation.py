"""Finds the text that broke a request, by halves, so that it fails alone (openrag #465).

Groups that failed are halved level by level until each holds texts of one job only: that job fails,
the others do not. An error that may have any cause is searched on, within one job, too: the rest of
its texts may work, and the one that does not goes alone the next time. Where the error may mean
that the server is broken, or that it takes nobody's options, four groups of which none works end
the search: all of them have the error then, and each job is tried again by its own rules. What a
server says of a text (it is too long, it is refused) is searched down to the one text, so that the
job can be told which.
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
from workers.embedding.wants import EmbedOrder, Want

OF_A_TEXT: Final = (BackendRejected, ContextExceeded, InputTooLarge, NotFinite, Refused)
"""What a server says of a text itself, or what its vector is."""
OF_ANY: Final = (BadAnswer, ServerFault, TruncatedStream)
"""What a text may have caused, or not."""
_NUMBER: Final = re.compile(r"^(?:input|tokens)\[\d+\]")


def give_up(
    wants: Sequence[Want], error: BackendError, *, is_suspect: bool = False
) -> list[EmbedOrder]:
    """Fail all jobs that want one of these; returns them.

    `is_suspect`: the text has broken a request before, when it was alone.
    """
    failed: dict[EmbedOrder, None] = {}
    if isinstance(error, ConnectionDropped) and len({o for want in wants for o in want.orders}) > 1:
        # Which text it was nobody knows: no attempt.
        error = BackendUnreachable(error.message, scope=error.scope)
    for want in wants:
        for order, rows in want.orders.items():
            if order in failed:
                continue
            is_one = len(wants) == 1 and (is_suspect or _is_its_own(order, error))
            message = _numbered(error.message, rows) if is_one else error.message
            if len(order.texts) == 1:
                message = error.message
            order.fail(_copied(error, message, is_echo=bool(failed)))
            failed[order] = None
    return list(failed)


def _is_its_own(order: EmbedOrder, error: BackendError) -> bool:
    """Whether one text is the cause: it is said, or others of its job have worked."""
    has_worked = order.left_texts < len(order.texts)
    return isinstance(error, OF_A_TEXT) or (isinstance(error, OF_ANY) and has_worked)


def crash(wants: Iterable[Want], error: BaseException) -> None:
    """Fail all jobs that want one of these with a defect of ours."""
    for want in wants:
        for order in want.orders:
            order.fail(error)


def _numbered(message: str, rows: Sequence[int]) -> str:
    """The message with the text's place in its job; an adapter may have counted in the request."""
    number = f"input[{rows[0]}]"
    return _NUMBER.sub(number, message) if _NUMBER.match(message) else f"{number}: {message}"


def _copied(error: BackendError, message: str, *, is_echo: bool) -> BackendError:
    """The same error for one job: an exception that two raise has the traceback of both."""
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

Ask = Callable[[Sequence[Want]], Awaitable[None]]
GiveUp = Callable[[Sequence[Want], BackendError], None]
Group = tuple[Sequence[Want], BackendError]
"""Texts that failed together, and with what."""


class Isolation:
    """One search; `ask` sends some texts or raises BackendError, `give_up` fails those jobs."""

    def __init__(self, ask: Ask, give_up: GiveUp) -> None:
        """Nothing is known yet."""
        self._ask = ask
        self._give_up = give_up

    async def of(self, wants: Sequence[Want], error: BackendError) -> None:
        """Ask for what the error does not concern; give up what it does."""
        groups = await self._mixed([(wants, error)])
        while groups:
            halves = list(_halves(groups))
            failed = [(half, why) for half in halves if (why := await self._trouble(half))]
            if len(halves) >= _GROUPS and len(failed) == len(halves) and _is_of_all(failed):
                for group, why in failed:
                    self._give_up(_wanted(group), why)
                return
            groups = await self._mixed(failed)

    async def _mixed(self, groups: Sequence[Group]) -> list[Group]:
        """Those in which jobs are still to be told apart; the others are dealt with."""
        mixed: list[Group] = []
        for group, error in groups:
            wants = _wanted(group)
            jobs = {order for want in wants for order in want.orders}
            of_several = len(jobs) > 1 and isinstance(error, OF_A_TEXT)
            if len(wants) > 1 and (of_several or isinstance(error, OF_ANY)):
                mixed.append((wants, error))
            else:
                await self._narrow(wants, error)
        return mixed

    async def _narrow(self, wants: Sequence[Want], error: BackendError) -> None:
        """Fail a job, naming the text if the error is about one."""
        while len(wants) > 1 and isinstance(error, OF_A_TEXT):
            first, second = wants[: len(wants) // 2], wants[len(wants) // 2 :]
            trouble = await self._trouble(first)
            wants, error = (second, error) if trouble is None else (first, trouble)
            wants = _wanted(wants)
        self._give_up(wants, error)

    async def _trouble(self, wants: Sequence[Want]) -> BackendError | None:
        wants = _wanted(wants)
        if not wants:
            return None
        try:
            await self._ask(wants)
        except BackendError as error:
            return error
        return None


def _halves(groups: Sequence[Group]) -> Iterator[Sequence[Want]]:
    for wants, _ in groups:
        yield wants[: len(wants) // 2]
        yield wants[len(wants) // 2 :]


def _wanted(wants: Sequence[Want]) -> list[Want]:
    return [want for want in wants if want.orders]


def _is_of_all(failed: Sequence[Group]) -> bool:
    return all(isinstance(error, _OF_ALL) for _, error in failed)
