"""The image, as far as it can be tried without Docker: what it copies, its start, its health."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fleet.local.process import commands
from workers.settings import WorkerSettings

TOP = Path(__file__).parents[2]
FOLDER = TOP / "compose"
DOCKERFILE = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
IGNORED = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()]


def entry(command: str, **environment: str) -> str:
    path = {"PATH": os.environ["PATH"]}
    told = subprocess.run(
        ["/bin/sh", str(FOLDER / "entrypoint.sh"), command],
        env=path | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return told.stdout.strip()


async def health(**more: str) -> int | None:
    check = await asyncio.create_subprocess_exec(
        sys.executable, str(FOLDER / "health.py"),
        env={**os.environ, "PYTHONPATH": str(TOP), **more}, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await check.wait()


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_reaches_docker(source: str) -> None:
    assert (TOP / source).exists()
    assert f"!{source}" in IGNORED


def test_every_package_of_the_distribution_is_copied() -> None:
    pyproject = (TOP / "pyproject.toml").read_text()
    found = re.search(r"wheel\]\npackages = (\[.*\])", pyproject)

    assert found is not None
    assert set(json.loads(found[1])) <= set(copied())


def test_everything_is_installed_by_its_hash_and_nothing_is_resolved() -> None:
    locked = {"--no-deps", "--require-hashes", "--only-binary", "--requirement"}
    ours = {"--no-deps", "--no-index"}
    words = [shlex.split(line) for line in re.findall(r"pip (?:install|wheel) [^&\n]*", DOCKERFILE)]

    assert len(words) == 4
    assert all(locked <= set(each) or ours <= set(each) for each in words)


def test_it_does_not_run_as_root() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]

    assert re.search(r"^USER fleet$", last, re.MULTILINE)


def test_left_alone_it_runs_the_shim() -> None:
    told = re.search(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)

    assert told is not None
    assert json.loads(told[1]) == [commands()["shim"]]


def test_the_entry_point_runs_a_line_of_the_procfile_with_its_variables() -> None:
    assert entry('echo "${FLEET_HOST:-127.0.0.1}" on', FLEET_HOST="0.0.0.0") == "0.0.0.0 on"


def test_the_process_takes_the_place_of_the_shell() -> None:
    shell, process = entry("""sh -c 'echo $PPID $$'""").split()

    assert int(shell) == os.getpid()
    assert int(process) > 0


def test_a_worker_has_another_name_at_every_start() -> None:
    names = {entry("printenv FLEET_WORKER_NAME", HOSTNAME="4f2a") for _ in range(2)}

    assert len(names) == 2
    assert all(WorkerSettings(worker_name=name).worker_name.startswith("4f2a-") for name in names)


def test_a_given_name_is_kept() -> None:
    assert entry("printenv FLEET_WORKER_NAME", FLEET_WORKER_NAME="mine") == "mine"


@pytest.mark.parametrize(("age_s", "code"), [(0, 0), (60, 1), (None, 1)])
def test_a_worker_is_well_while_its_file_is_new(
    age_s: float | None, code: int, tmp_path: Path
) -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    environment = compose["x-environment"]
    _, *command = compose["x-worker"]["healthcheck"]["test"]
    path = tmp_path / "worker.health"
    if age_s is not None:
        path.touch()
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    words = [word.replace("$$", "$").replace("/tmp/worker.health", str(path)) for word in command]

    assert environment["FLEET_HEALTH_FILE"] == "/tmp/worker.health"
    assert subprocess.call(words, stderr=subprocess.DEVNULL) == code


async def test_the_shim_is_well_while_it_answers() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])
    well = await health(FLEET_PORT=port)
    server.close()

    assert well == 0
    assert await health(FLEET_PORT=port) == 1
