"""The real llama-server of this machine: finds it, builds it once, runs it with a tiny model.

    python -m fleet.real.llama_server build     build it into the cache, unless it is there
    python -m fleet.real.llama_server path      print where it is; exit code 1 if it is not
    python -m fleet.real.llama_server run [...] run it in the foreground, with further options

`LLAMA_SERVER_BIN` names another binary; `LLM_FLEET_CACHE` another cache.
"""

import os
import sys
from pathlib import Path
from typing import Final

from fleet.real.build import VERSION, CannotBuild, build
from fleet.real.cache import alone, cache_folder

BINARY_VARIABLE: Final = "LLAMA_SERVER_BIN"
HOW_TO_BUILD: Final = "python -m fleet.real.llama_server build"
OPTIONS: Final = ("-t", "1", "--metrics", "--slots", "--offline")
"""One thread always: llama.cpp's threads spin while they wait, and starve a small machine."""


class NotBuilt(Exception):
    """There is no llama-server on this machine; the message says how to get one."""


def expected_path() -> Path:
    """Where the binary is or will be."""
    if told := os.environ.get(BINARY_VARIABLE):
        return Path(told)
    return cache_folder() / f"llama-server-{VERSION}" / "llama-server"


def find() -> Path:
    """The binary; raises NotBuilt."""
    path = expected_path()
    if not os.access(path, os.X_OK) or not path.is_file():
        remedy = f"{BINARY_VARIABLE} says so" if os.environ.get(BINARY_VARIABLE) else HOW_TO_BUILD
        raise NotBuilt(f"no llama-server at {path}: {remedy}")
    return path


def build_once() -> Path:
    """The binary, built now if it was not; raises CannotBuild, or NotBuilt for a named one."""
    if os.environ.get(BINARY_VARIABLE):
        return find()
    path = expected_path()
    with alone(path):
        if not path.is_file():
            build(path)
    return find()


def run(options: list[str]) -> int:
    """Become the server, on port 8080 with the tiny model unless the options say otherwise."""
    from fleet.real.tiny_model import tiny_model  # noqa: PLC0415 - gguf belongs to an extra

    binary = str(find())
    model = [] if {"-m", "--model"} & set(options) else ["-m", str(tiny_model())]
    command = [binary, *model, "--host", "127.0.0.1", *OPTIONS, *options]
    os.execv(binary, command)  # noqa: S606 - our own words, no shell wanted


def main(arguments: list[str]) -> int:
    """Do what the first word says; the exit code."""
    try:
        match arguments:
            case ["build"]:
                sys.stdout.write(f"{build_once()}\n")
            case ["path"]:
                sys.stdout.write(f"{find()}\n")
            case ["run", *options]:
                return run(options)
            case _:
                sys.stderr.write(__doc__ or "")
                return 2
    except ImportError as error:
        sys.stderr.write(f"{error}; try: pip install 'llm-fleet[real]'\n")
        return 1
    except (NotBuilt, CannotBuild, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
