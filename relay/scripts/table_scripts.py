"""Scripts of relay/lua/tables: small hashes that every shim copies when they have changed.

A table has a field for each row, with `MARK` before its name, and the field `revision`, which is
another after each change: a copy of that revision is current, and a change that was made for
another one is refused.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from contract.wire import AnyModel, decode
from relay.connection import Argument, Hash, ScriptCall, pairs
from relay.scripts.loader import load

MARK: Final = "="
"""Before the name of a row."""


def read_table(key: str, known_revision: str) -> ScriptCall[tuple[str, Hash | None]]:
    """Read the table at a key if it has changed.

    Returns its revision and the table (field to text); None in its place if the revision is
    `known_revision`.
    """
    return ScriptCall(load("tables/read"), [key], [known_revision], _read)


def change_table(key: str, known: str, revision: str, name: str, json: bytes) -> ScriptCall[bool]:
    """Set a row, or delete it (no `json`), if the table has the revision `known`.

    It gets a new `revision`. False if the table has another one.
    """
    args: list[Argument] = [known, revision, f"{MARK}{name}", json]
    return ScriptCall(load("tables/change"), [key], args, bool)


def rows(
    table: Mapping[bytes, bytes],
    kind: type[AnyModel],
    passing_over: Callable[[str], AbstractContextManager[None]],
    key: str,
) -> list[tuple[str, AnyModel]]:
    """Names and rows; those are passed over which are damaged, or only a newer version can read."""
    found: list[tuple[str, AnyModel]] = []
    for field, text in table.items():
        if field.startswith(MARK.encode()):
            name = field.decode(errors="replace").removeprefix(MARK)
            with passing_over(f"{key}, {name}"):
                found.append((name, decode(kind, text)))
    return found


def _read(reply: Any) -> tuple[str, Hash | None]:
    revision, *table = reply
    return revision.decode(errors="replace"), pairs(table[0]) if table else None
