"""The rules of the firewall that docs/hardening.md shows, in a network of the test's own."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.debian_programs import Program, program
from support.front_proxy import DOCUMENT

_CONNECTIONS = """
import asyncio, json, os

async def connections(count, *address):
    made = await asyncio.gather(*(
        asyncio.open_connection("127.0.0.1", 443, local_addr=(a, 0))
        for a in address for _ in range(count)), return_exceptions=True)
    return made, sum(not isinstance(each, Exception) for each in made)

async def main():
    wait = lambda reader, writer: asyncio.sleep(60)
    server = await asyncio.start_server(wait, "127.0.0.1", 443, backlog=1000)
    kept, one = await connections(230, "127.0.0.2")
    kept_too, other = await connections(20, "127.0.0.3")
    print(json.dumps([one, other]), flush=True)
    os._exit(0)

asyncio.run(main())
"""


def rules() -> str:
    """The documented lines."""
    lines = re.findall(r"^nft .*$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) >= 4
    return "\n".join(lines)


def alone(words: list[str], found: Program) -> subprocess.CompletedProcess[str]:
    """Run this where nothing but a loopback interface is."""
    path = f"{found.path.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["unshare", "--net", *words], env={**found.environment, "PATH": path},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@cache
def can_unshare() -> bool:
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="NOT RUN: a network of its own takes root, unshare")
def test_the_firewall_bounds_the_connections_of_an_address_and_of_no_other(tmp_path: Path) -> None:
    script = tmp_path / "connections.py"
    script.write_text(_CONNECTIONS)
    up = f"set -e\nip link set lo up\n{rules()}\nexec {sys.executable} {script}"
    found = program("nft")
    if alone(["nft", "add", "table", "inet", "t"], found).returncode:
        pytest.skip("NOT RUN: the kernel has no nftables")
    told = alone(["sh", "-c", up], found)

    assert (told.stdout, told.stderr) == ("[200, 20]\n", "")
