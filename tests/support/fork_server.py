"""A process that imports the fleet's programs once, and forks at each call of `forks.py`."""

import asyncio
import gc
import json
import os
import runpy
import signal
import sys
from pathlib import Path

import httpx

import api_shim.__main__
import workers.__main__
import workers.scripted.server
from api_shim.app import create_app
from api_shim.settings import ShimSettings


async def make_document() -> None:
    """Make the document that all shims of a process share, and that each begins to make."""
    transport = httpx.ASGITransport(create_app(ShimSettings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://shim") as http:
        (await http.get("/openapi.json")).raise_for_status()


def serve() -> tuple[str, list[str]]:
    """Fork at each call until the input ends; returns in the child, with what it shall run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end us
    for line in iter(sys.stdin.readline, ""):
        method, arguments = json.loads(line)
        if method == "reap":
            _, status = os.waitpid(arguments, 0)
            answer(os.waitstatus_to_exitcode(status))
            continue
        pid = os.fork()
        if pid == 0:
            program, words, env, log = arguments
            become(env, Path(log))
            return program, words
        answer(pid)
    os._exit(0)


def answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def become(env: dict[str, str], log: Path) -> None:
    """Have the environment, signals and descriptors of a new process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    null, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(out)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the old one has read ahead


def main() -> None:
    for program in (api_shim.__main__, workers.__main__, workers.scripted.server):
        del sys.modules[program.__name__]  # to be run, not imported
    asyncio.run(make_document())
    gc.collect()
    gc.freeze()
    program, words = serve()
    sys.argv = [program, *words]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
