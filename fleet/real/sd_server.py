"""Finds the real sd-server (stable-diffusion.cpp), builds it once, runs it with a tiny model.

    python -m fleet.real.sd_server build [--jobs N]  build it into the cache, once (6 minutes)
    python -m fleet.real.sd_server path              print where it is; exit code 1 if nowhere
    python -m fleet.real.sd_server run [...]         run it in the foreground, with options

`SD_SERVER_BIN` names another binary; `LLM_FLEET_CACHE` another cache.
"""

import os
import sys
from typing import Final

from fleet.real.binary import Binary, NotBuilt
from fleet.real.build import Recipe

__all__ = ["BINARY", "OPTIONS", "RECIPE", "NotBuilt", "build_once", "expected_path", "find"]

RECIPE: Final = Recipe(
    server="sd-server",
    package="stable-diffusion-cpp-python",
    version="0.4.7",
    source="vendor/stable-diffusion.cpp",
    flags=(
        "-DSD_BUILD_EXAMPLES=ON",
        "-DSD_SERVER_BUILD_FRONTEND=OFF",
        "-DSD_WEBP=OFF",
        "-DSD_WEBM=OFF",
    ),
)
OPTIONS: Final = ("-t", "1")
"""One thread always: ggml's threads spin while they wait, and starve a small machine."""

BINARY: Final = Binary(RECIPE, "SD_SERVER_BIN", "python -m fleet.real.sd_server build")
expected_path = BINARY.expected_path
find = BINARY.find
build_once = BINARY.build_once


def run(options: list[str]) -> int:
    """Exec the server, on port 1234 with the tiny model unless the options say otherwise."""
    from fleet.real.tiny_flux import tiny_flux  # noqa: PLC0415 - imports numpy

    binary = str(find())
    has_model = {"-m", "--model", "--diffusion-model"} & set(options)
    model = [] if has_model else tiny_flux().options
    command = [binary, *model, "--listen-ip", "127.0.0.1", *OPTIONS, *options]
    os.execv(binary, command)  # noqa: S606 - our own words, no shell wanted


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    return BINARY.command(arguments, run, __doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
