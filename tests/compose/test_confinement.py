"""What containers take away is not needed: a writable root, capabilities, new privileges.

No engine runs here: a mount namespace and setpriv do what it would do. Docker's seccomp profile is
not tried.
"""

import asyncio
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from support.front_proxy import DOCUMENT
from support.processes import Process, until_logged
from support.redis_server import free_port
from support.shape import ROOT
from support.small_disk import needs_mount

PLACE = "/srv"
"""Where all is that may be written: a folder that every machine has, and that holds no checkout."""
_CONFINE = (
    f"mount -o remount,bind,ro / && mount -t tmpfs tmpfs {PLACE} && mkdir {PLACE}/tmp {PLACE}/data"
    ' && if touch /not-here 2>/dev/null; then exit 9; fi && exec "$@"'
)
CONFINED = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c", _CONFINE, "sh"),
    *("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
)


def documented() -> list[str]:
    """The words of `docker run` in the document."""
    text = DOCUMENT.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^docker run (.*)$", text, re.MULTILINE)
    return shlex.split(line)


def test_a_container_by_hand_has_what_compose_has() -> None:
    words = " ".join(documented())
    service = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["x-process"]
    image = (ROOT / "compose" / "Dockerfile").read_text()
    (user,) = re.findall(r"useradd .*--uid (\d+)", image)

    assert service["read_only"] is True
    assert "--read-only " in words
    assert f"--tmpfs {service['tmpfs'][0]} " in words
    assert f"--cap-drop {service['cap_drop'][0]} " in words
    assert "--security-opt no-new-privileges " in words
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert f"--user {user} " in words
    assert words.endswith(f"{service['image']} python -m workers")


class Confined(Process):
    """A process of ours, confined as a container would."""

    def __init__(self, module: str, options: list[str], env: dict[str, str], log: Path) -> None:
        words = [*CONFINED, sys.executable, "-P", "-m", module, *options]
        super().__init__(words, env, log)


@contextmanager
def ended(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.end()


async def until_written(file: Path, process: Process) -> None:
    """Wait until a process has written a file: a worker does with its first report."""
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(file.exists):
            assert process.popen.poll() is None, process.text()
            await asyncio.sleep(0.05)


@needs_mount
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="NOT RUN: there is no setpriv")
@pytest.mark.slow
async def test_a_fleet_works_on_a_read_only_root_without_capabilities(
    redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    health = f"{PLACE}/tmp/worker.health"
    env = {
        "FLEET_REDIS_URL": redis_url,
        "FLEET_DATA_DIR": f"{PLACE}/data",
        "TMPDIR": f"{PLACE}/tmp",
    }
    worker = env | {"FLEET_WORKER_BACKEND": "scripted", "FLEET_HEALTH_FILE": health}
    with (
        ended(Confined("workers", [], worker, tmp_path / "worker.log")) as one,
        ended(Confined("api_shim", ["--port", str(port)], env, tmp_path / "shim.log")) as shim,
    ):
        await until_logged(shim, "running on", 60)
        await until_written(Path(f"/proc/{one.popen.pid}/root{health}"), one)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            said = [{"role": "user", "content": "x"}]
            chat = {"model": "scripted-story:chunks=3", "messages": said}
            told = await http.post(
                "/v1/chat/completions", json=chat, headers={"X-Fleet-Backend": "scripted"}
            )
            form = {"purpose": "batch"}
            kept = await http.post("/v1/files", data=form, files={"file": ("a", b"x" * 100_000)})
            read = await http.get(f"/v1/files/{kept.json()['id']}/content")

    assert [each.status_code for each in (told, kept, read)] == [200, 200, 200]
    assert "Read-only" not in one.text() + shim.text()
