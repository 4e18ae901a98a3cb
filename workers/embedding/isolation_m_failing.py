"""Who is told of an error, and how: each job in words about its own texts."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from contract.errors_m_backend_errors import (
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
from workers.embedding.wants import Order, Want

OF_A_TEXT: Final = (BackendRejected, ContextExceeded, InputTooLarge, NotFinite, Refused)
"""What a server says of a text itself, or what its vector is."""
OF_ANY: Final = (BadAnswer, ServerFault, TruncatedStream)
"""What a text may have caused, or not."""
_NUMBER: Final = re.compile(r"^(?:input|tokens)\[\d+\]")


def give_up(wants: Sequence[Want], error: BackendError, *, is_suspect: bool = False) -> list[Order]:
    """Fail all jobs that want one of these; returns them.

    `is_suspect`: the text has broken a request before, when it was alone.
    """
    failed: dict[Order, None] = {}
    if isinstance(error, ConnectionDropped) and len({o for want in wants for o in want.orders}) > 1:
        error = BackendUnreachable(error.message)  # whose text it was nobody knows: no attempt
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


def _is_its_own(order: Order, error: BackendError) -> bool:
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
