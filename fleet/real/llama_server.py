"""Finds the real llama-server, builds it once, runs it with a tiny model.

    python -m fleet.real.llama_server build [--jobs N]  build it into the cache, once
    python -m fleet.real.llama_server path              print where it is; exit code 1 if nowhere
    python -m fleet.real.llama_server run [...]         run it in the foreground, with options

`LLAMA_SERVER_BIN` names another binary; `LLM_FLEET_CACHE` another cache.
"""

import os
import sys
from typing import Final

from fleet.real.binary import Binary, NotBuilt
from fleet.real.build import Recipe

__all__ = ["BINARY", "OPTIONS", "RECIPE", "NotBuilt", "build_once", "expected_path", "find"]

RECIPE: Final = Recipe(
    server="llama-server",
    package="llama-cpp-python",
    version="0.3.36",
    source="vendor/llama.cpp",
    flags=(
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DLLAMA_BUILD_APP=OFF",
        "-DLLAMA_BUILD_UI=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_OPENSSL=OFF",
    ),
)
OPTIONS: Final = ("-t", "1", "--metrics", "--slots", "--offline")
"""One thread always: llama.cpp's threads spin while they wait, and starve a small machine."""

BINARY: Final = Binary(RECIPE, "LLAMA_SERVER_BIN", "python -m fleet.real.llama_server build")
expected_path = BINARY.expected_path
find = BINARY.find
build_once = BINARY.build_once


def run(options: list[str]) -> int:
    """Exec the server, on port 8080 with the tiny model unless the options say otherwise."""
    from fleet.real.tiny_model import tiny_model  # noqa: PLC0415 - gguf belongs to an extra

    binary = str(find())
    model = [] if {"-m", "--model"} & set(options) else ["-m", str(tiny_model())]
    command = [binary, *model, "--host", "127.0.0.1", *OPTIONS, *options]
    os.execv(binary, command)  # noqa: S606 - our own words, no shell wanted


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    return BINARY.command(arguments, run, __doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
