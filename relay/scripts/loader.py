"""The text of a Lua script: a file of relay/lua with the lines that it includes."""

import re
from functools import cache
from importlib.resources import files
from typing import Final

_INCLUDE: Final = re.compile(r"^-- include (\S+)\n", re.MULTILINE)
_FOLDER: Final = files("relay") / "lua"


@cache
def load(name: str) -> str:
    """The whole text of a script, by its path in relay/lua without `.lua`, as in `batches/take`.

    A line `-- include shared/time.lua` is replaced by that file, which may include others; a file
    that is included a second time adds nothing. Raises FileNotFoundError.
    """
    return _resolved(f"{name}.lua", set())


def _resolved(path: str, seen: set[str]) -> str:
    def included(line: re.Match[str]) -> str:
        if line[1] in seen:
            return ""
        seen.add(line[1])
        return _resolved(line[1], seen)

    return _INCLUDE.sub(included, source(path))


def source(path: str) -> str:
    """One file of relay/lua as it is written; raises FileNotFoundError."""
    return (_FOLDER / path).read_text(encoding="utf-8")
