"""Checks of the machine: Python, ports, folders, limits, installed packages."""

import os
import platform
import resource
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from contract.settings import default_folder
from fleet.client.settings import UpSettings
from fleet.doctor.finding import Finding, broken, note, ok
from fleet.local.redis_server import port_is_free

_OLDEST_PYTHON = (3, 11)
_FEW_FILES = 4096
"""Each stream needs a socket in the shim and one in the worker."""
_LITTLE_ROOM_BYTES = 2**30


def python() -> Finding:
    """The version of Python."""
    found = platform.python_version()
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return broken("python", found, "install Python 3.11 or newer and make the .venv again")
    return ok("python", f"{found} at {sys.executable}")


def port(shim_answers: bool) -> Finding:  # noqa: FBT001 - a fact, named by its parameter
    """Whether the port of `fleet up` is free: FLEET_PORT, or the default one."""
    host, number = UpSettings().host, UpSettings().port
    if not number:
        return ok("port", f"`fleet up` takes a free one on {host}")
    if port_is_free(host, number):
        return ok("port", f"{number} on {host} is free for `fleet up`")
    if shim_answers:
        return ok("port", f"{number} on {host} is in use by a running fleet")
    return note(
        "port",
        f"{number} on {host} is in use by another program",
        f"stop that program, or start with `fleet up --port {number % 65535 + 1}` (0: a free one)",
    )


def data_folder() -> Finding:
    """Whether the data folder is writable, and has free space."""
    folder = UpSettings().data_dir or default_folder()
    place = next(each for each in (folder, *folder.parents) if each.exists())
    fix = "set FLEET_DATA_DIR, or give --data-dir, to a folder that you may write to"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return broken("data folder", f"{folder} cannot be written", fix)
    free_bytes = shutil.disk_usage(place).free
    room = f"{folder}, {free_bytes / 2**30:.1f} GiB free"
    if free_bytes < _LITTLE_ROOM_BYTES:
        return note("data folder", room, "free some space: logs of jobs are kept there for a day")
    return ok("data folder", room)


def open_files() -> Finding:
    """The limit of open files, which bounds the streams of a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FEW_FILES:
        fix = (
            f"`ulimit -n {max(soft, min(hard, 65536))}` before `fleet up`, or raise the hard limit"
        )
        return note("open files", f"a process may have {soft}: about {soft // 2} streams", fix)
    return ok("open files", f"a process may have {soft}")


def local_embeddings() -> Finding:
    """Whether the packages of the backend type `local` are installed."""
    missing = [name for name in ("onnxruntime", "tokenizers") if find_spec(name) is None]
    if missing:
        return note(
            "extra local-embed",
            f"{' and '.join(missing)} not installed: no embeddings inside a worker",
            "pip install 'llm-fleet[local-embed]' if you want the backend type `local`",
        )
    return ok("extra local-embed", "onnxruntime and tokenizers are installed")


def llama_server() -> Finding:
    """Whether the llama-server of the demo and the tests is built."""
    from fleet.real.llama_server import NotBuilt, find  # noqa: PLC0415 - only needed here

    try:
        found: Path = find()
    except NotBuilt as error:
        return note("llama-server", str(error), "`make demo-llama` builds it, once")
    return ok("llama-server", str(found))
