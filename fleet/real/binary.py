"""Finds the binary of a real server, or builds it once on this machine."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from fleet.real.build import CannotBuild, Recipe, build
from fleet.real.cache import alone, cache_folder


class NotBuilt(Exception):
    """The server is not built; the message says how to build it."""


class Binary:
    """The binary of a server: built into the cache, or named by an environment variable."""

    def __init__(self, recipe: Recipe, variable: str, how_to_build: str) -> None:
        """`variable` is the name of the environment variable, as in LLAMA_SERVER_BIN."""
        self._recipe = recipe
        self._variable = variable
        self._how_to_build = how_to_build

    def expected_path(self) -> Path:
        """Path of the binary, which may not exist yet."""
        if named := os.environ.get(self._variable):
            return Path(named)
        recipe = self._recipe
        return cache_folder() / f"{recipe.server}-{recipe.version}" / recipe.server

    def find(self) -> Path:
        """Path of the binary; raises NotBuilt."""
        path = self.expected_path()
        if not os.access(path, os.X_OK) or not path.is_file():
            is_named = os.environ.get(self._variable)
            remedy = f"{self._variable} is wrong" if is_named else self._how_to_build
            raise NotBuilt(f"no {self._recipe.server} at {path}: {remedy}")
        return path

    def build_once(self, jobs: int | None = None) -> Path:
        """Build the binary unless it exists; raises CannotBuild, or NotBuilt for a named one."""
        if os.environ.get(self._variable):
            return self.find()
        path = self.expected_path()
        with alone(path):
            if not path.is_file():
                build(self._recipe, path, jobs)
        return self.find()

    def command(
        self, arguments: list[str], run: Callable[[list[str]], int], usage: str | None
    ) -> int:
        """Run a command: `build`, `path`, or `run` with options; returns the exit code."""
        try:
            match arguments:
                case ["build"]:
                    sys.stdout.write(f"{self.build_once()}\n")
                case ["build", "--jobs", count]:
                    sys.stdout.write(f"{self.build_once(int(count))}\n")
                case ["path"]:
                    sys.stdout.write(f"{self.find()}\n")
                case ["run", *options]:
                    return run(options)
                case _:
                    sys.stderr.write(usage or "")
                    return 2
        except ImportError as error:
            sys.stderr.write(f"{error}; try: pip install 'llm-fleet[real]'\n")
            return 1
        except (NotBuilt, CannotBuild, OSError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
        return 0
