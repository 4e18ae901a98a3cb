"""What `fleet up` is going to start, decided before anything runs."""

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.client.errors import CannotStart
from fleet.local.launch_plan import (
    Plan,
    backend_from_discovery,
    backend_from_option,
    backends,
    child_environment,
    shim_ports,
)
from fleet.local.process import commands, worker_command
from workers.backends.dsn import BackendConfig, parse


def test_every_line_of_the_procfile_is_one_simple_command() -> None:
    for line in commands().values():
        words = shlex.split(line)

        assert not {"&&", "||", "|", ";", "&", ">", "<"} & set(words)
        assert words[0] in {"python", "env"} or words[0].startswith("${FLEET_REDIS_SERVER")


def test_a_backend_has_its_own_line_or_the_one_for_any() -> None:
    assert "FLEET_WORKER_BACKEND=ollama" in worker_command("ollama")
    assert worker_command("box7") == commands()["worker"]


def test_a_given_backend_becomes_a_variable_of_its_workers() -> None:
    found = backend_from_option("box_7=ollama://10.0.0.5")

    assert (found.name, found.variables) == ("box_7", {"LLM_BOX_7": "ollama://10.0.0.5"})


@pytest.mark.parametrize("option", ["box", "Box=ollama://x", "box=nonsense", "box=what://x"])
def test_a_backend_that_makes_no_sense_is_refused(option: str) -> None:
    with pytest.raises(CannotStart, match="--backend"):
        backend_from_option(option)


def test_no_message_repeats_a_key() -> None:
    with pytest.raises(CannotStart) as caught:
        backend_from_option("box=what://sesame@host")

    assert "sesame" not in str(caught.value)


async def test_what_is_configured_is_started_without_looking_further() -> None:
    found = await backends([], {"LLM_BOX": "ollama://10.0.0.5", "OLLAMA_URL": "http://h:1"})

    assert [each.name for each in found] == ["box", "ollama"]


async def test_a_folder_of_embeddings_alone_leaves_room_for_a_chat() -> None:
    found = await backends([], {"LLM_LOCAL": "local:///models/minilm"})

    assert found[0].name == "local"
    assert len(found) > 1


@pytest.mark.parametrize(
    "config",
    [
        BackendConfig(name="ollama", type="ollama", url="http://127.0.0.1:11434"),
        BackendConfig(name="generic-2", type="generic", url="http://127.0.0.1:8000/v1"),
    ],
)
def test_what_was_found_reaches_its_workers_unchanged(config: BackendConfig) -> None:
    planned = backend_from_discovery(config)
    ((variable, dsn),) = planned.variables.items()

    assert parse(variable, dsn) == config.model_copy(update={"name": planned.name})


def test_a_given_backend_hides_what_else_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_URL", "http://elsewhere:1")
    monkeypatch.setenv("LLAMACPP_URL", "http://elsewhere:2")

    found = child_environment({"LLM_OLLAMA": "ollama://here"})

    assert "OLLAMA_URL" not in found
    assert found["LLAMACPP_URL"] == "http://elsewhere:2"
    assert found["PATH"].startswith(str(Path(sys.executable).parent))


def test_processes_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text("print('somebody else')")
    command = [sys.executable, "-c", "import workers; print(workers.__file__)"]

    found = subprocess.run(
        command, cwd=tmp_path, env=child_environment({}), capture_output=True, text=True, check=True
    )

    assert found.stdout.strip().endswith("workers/__init__.py")
    assert "somebody else" not in found.stdout


def test_a_taken_port_is_named_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(CannotStart, match=rf"port {port} .*--port"):
            shim_ports("127.0.0.1", port, 1)


def test_free_ports_differ() -> None:
    assert len(set(shim_ports("127.0.0.1", 0, 5))) == 5


def test_callers_on_this_machine_reach_a_shim_that_listens_everywhere() -> None:
    assert Plan(Path(), host="0.0.0.0", ports=(1, 2)).urls == (
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
    )
