"""Finds the text that broke a request, by halves, so that it fails alone (openrag #465).

Groups that failed are halved level by level until each holds texts of one job only: that job fails,
the others do not. An error that may have any cause is searched on, within one job, too: the rest of
its texts may work, and the one that does not goes alone the next time. Where the error may mean
that the server is broken, or that it takes nobody's options, four groups of which none works end
the search: all of them have the error then, and each job is tried again by its own rules. What a
server says of a text (it is too long, it is refused) is searched down to the one text, so that the
job can be told which.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from contract.errors_m_backend_errors import BackendError, BackendRejected, NotFinite
from workers.embedding.isolation_m_failing import OF_A_TEXT, OF_ANY
from workers.embedding.wants import Want

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
