"""What the doctor finds: one row each, with a fix in words wherever something is not well."""

from typing import Literal

from contract.wire import WireModel

State = Literal["ok", "note", "broken"]


class Finding(WireModel):
    """One thing that was looked at."""

    what: str
    state: State
    """`note`: something is missing that nobody needs now; `broken`: the fleet does not work so."""
    detail: str
    fix: str = ""


def ok(what: str, detail: str) -> Finding:
    """All is well."""
    return Finding(what=what, state="ok", detail=detail)


def note(what: str, detail: str, fix: str) -> Finding:
    """It would be good to know."""
    return Finding(what=what, state="note", detail=detail, fix=fix)


def broken(what: str, detail: str, fix: str) -> Finding:
    """It does not work like this."""
    return Finding(what=what, state="broken", detail=detail, fix=fix)
