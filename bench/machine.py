"""On what it was measured: processor, load, versions. No names of machines or people."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench import peers
from fleet.local.redis_server import choose
from relay.settings import RelaySettings

_PACKAGES = ("celery", "kombu", "redis", "hiredis", "uvloop", "aiohttp", "fastapi", "uvicorn")


def described() -> list[str]:
    """Lines for the top of the results."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    lines = [
        f"{os.cpu_count()} cores of {_processor()}, {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, {packages}",
        _server(),
    ]
    found = {name: peers.version(name) for name in peers.FOLDERS}
    lines.append(
        "peers: " + ", ".join(f"{name} {each or '(not installed)'}" for name, each in found.items())
    )
    return lines


def load() -> float:
    """How busy the machine is: runnable processes, mean of a minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _server() -> str:
    binary = choose(RelaySettings.model_construct()).binary
    told = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True)
    return told.stdout.partition(" sha=")[0].strip() + ", append-only file on"
