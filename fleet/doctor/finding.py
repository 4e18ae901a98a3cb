"""The result of a check of `fleet doctor`."""

from typing import Literal

from contract.wire import WireModel

State = Literal["ok", "note", "broken"]


class Finding(WireModel):
    """The result of one check, with a fix if it is not `ok`."""

    what: str
    state: State
    """`note`: something optional is missing; `broken`: the fleet cannot work."""
    detail: str
    fix: str = ""


def ok(what: str, detail: str) -> Finding:
    """A finding that nothing is wrong."""
    return Finding(what=what, state="ok", detail=detail)


def note(what: str, detail: str, fix: str) -> Finding:
    """A finding that something optional is missing."""
    return Finding(what=what, state="note", detail=detail, fix=fix)


def broken(what: str, detail: str, fix: str) -> Finding:
    """A finding that the fleet cannot work."""
    return Finding(what=what, state="broken", detail=detail, fix=fix)
