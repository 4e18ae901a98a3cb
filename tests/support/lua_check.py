"""Checks the Lua of relay/lua: it parses, uses no undefined global, no local twice in vain.

    PYTHONPATH=tests python -m support.lua_check

Lua 5.1, which Redis runs, compiles each script with what it includes; its bytecode names every
global that is read or written. Where `luacheck` is installed it reads the scripts, too.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from
from typing import Final

from lupa.lua51 import LuaError, LuaRuntime

from relay.scripts.loader import load, source

FOLDER: Final = Path(__file__).parents[2] / "relay" / "lua"
SCRIPTS: Final = sorted(
    str(path.relative_to(FOLDER).with_suffix(""))
    for path in FOLDER.rglob("*.lua")
    if path.parent.name != "shared"
)
FILES: Final = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.lua"))
GLOBALS: Final = {
    "ARGV", "KEYS", "cjson", "ipairs", "math", "next", "pairs", "pcall", "redis", "string", "table",
    "tonumber", "tostring", "type", "unpack",
}  # fmt: skip
"""What scripts use of what Redis gives them."""
_GETGLOBAL: Final = 5
_SETGLOBAL: Final = 7
_STRING: Final = 4
_CONSTANT_BYTES: Final = {0: 0, 1: 1, 3: 8}
"""Sizes of nil, a boolean and a number."""


def bytecode(text: str) -> bytes:
    """The script, compiled; raises LuaError."""
    runtime = LuaRuntime(encoding=None)
    dump = runtime.eval(
        b"function(text) return string.dump(assert(loadstring(text, '=script'))) end"
    )
    code: bytes = dump(without_flags(text).encode())
    return code


def without_flags(text: str) -> str:
    """The same lines without `#!lua`, which only Redis reads."""
    return "--" + text if text.startswith("#!") else text


class _Reader:
    """Reads functions of Lua 5.1's bytecode: 64-bit sizes, 32-bit instructions."""

    def __init__(self, code: bytes) -> None:
        self.code, self.at = code, 12

    def integer(self) -> int:
        (value,) = unpack_from("<i", self.code, self.at)
        self.at += 4
        return int(value)

    def string(self) -> str:
        (size,) = unpack_from("<Q", self.code, self.at)
        text = self.code[self.at + 8 : self.at + 8 + size]
        self.at += 8 + size
        return text.rstrip(b"\0").decode("utf-8", "replace")

    def constant(self) -> str:
        kind = self.code[self.at]
        self.at += 1
        if kind == _STRING:
            return self.string()
        self.at += _CONSTANT_BYTES[kind]
        return ""

    def globals(self) -> Iterator[str]:
        """Names of the globals that a function and those in it read or write."""
        self.string()
        self.at += 8 + 4  # its lines; upvalues, parameters, vararg, stack
        instructions = [self.integer() for _ in range(self.integer())]
        constants = [self.constant() for _ in range(self.integer())]
        for instruction in instructions:
            if instruction & 0x3F in {_GETGLOBAL, _SETGLOBAL}:
                yield constants[(instruction >> 14) & 0x3FFFF]
        for _ in range(self.integer()):
            yield from self.globals()
        lines = self.integer()
        self.at += 4 * lines
        for _ in range(self.integer()):
            self.string()
            self.at += 8
        for _ in range(self.integer()):
            self.string()


def undefined(text: str) -> set[str]:
    """Globals of a script that Redis does not define; raises LuaError."""
    return set(_Reader(bytecode(text)).globals()) - GLOBALS


def code_of(text: str) -> str:
    """A file's code without comments and strings."""
    return re.sub(r"--[^\n]*|'[^'\n]*'", "''", text)


def locals_of(text: str) -> list[str]:
    """Every name that is declared: local variables, functions, parameters and loop variables."""
    code = code_of(text)
    lists = re.findall(r"\blocal\s+(?!function\b)([\w\s,]+)", code)
    lists += re.findall(r"\bfor\s+([\w\s,]+?)\s*(?:=|\bin\b)", code)
    lists += re.findall(r"\bfunction\b[^(]*\(([\w\s,]*)\)", code)
    names = [name.split()[0] for each in lists for name in each.split(",") if name.strip()]
    return names + re.findall(r"\blocal\s+function\s+(\w+)", code)


def unused(text: str, *, exported: bool = False) -> set[str]:
    """Locals that occur nowhere but in their declaration; `exported`: those in a block alone."""
    words = re.findall(r"\w+", code_of(text))
    outer = set(re.findall(r"^local (?:function )?([\w, \n]+)", code_of(text), re.MULTILINE))
    shared = {name.strip() for each in outer for name in each.split(",")} if exported else set()
    return {name for name in locals_of(text) if words.count(name) == 1} - shared - {"_"}


def faults(name: str) -> list[str]:
    """What is wrong with a script and what it includes."""
    try:
        found = [f"{name}: undefined global {each}" for each in sorted(undefined(load(name)))]
    except LuaError as error:
        return [f"{name}: {error}"]
    return found


def all_faults() -> list[str]:
    """What is wrong with any file."""
    found = [fault for name in SCRIPTS for fault in faults(name)]
    for path in FILES:
        names = unused(source(path), exported=path.startswith("shared/"))
        found += [f"{path}: unused local {each}" for each in sorted(names)]
    return found


def luacheck(program: str) -> int:
    """Have luacheck read every script with what it includes; its exit code."""
    codes = [
        subprocess.run(
            [program, "-", "--filename", name, "--std", "lua51", "--no-max-line-length",
             "--no-unused", "--no-redefined", "--globals", "redis", "cjson", "KEYS", "ARGV"],
            input=without_flags(load(name)).encode(), check=False,
        ).returncode
        for name in SCRIPTS
    ]  # fmt: skip
    return max(codes)


def main() -> int:
    """Print every fault; 1 if there is any."""
    found = all_faults()
    print("\n".join(found) or f"{len(SCRIPTS)} Lua scripts in {len(FILES)} files: no faults")  # noqa: T201
    program = shutil.which("luacheck")
    return 1 if found or (program and luacheck(program)) else 0


if __name__ == "__main__":
    sys.exit(main())
