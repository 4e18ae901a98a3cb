"""`fleet show`, `load`, `ps` and the other verbs on models, against a server of Ollama's shape."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.up import Command, Up

from fleet import Client
from fleet.cli.commands.chat import image_data, user_message
from fleet.cli.commands.model import facts, parameters

ON = ("--backend", "olla")


@pytest.fixture(scope="module", autouse=True)
def olla(up: Up, box: str) -> Iterator[None]:
    """A backend of Ollama's shape beside the scripted one."""
    with Client(up.status["urls"][0]) as fleet:
        fleet.add_backend("olla", f"ollama://{box}")
        yield
        fleet.remove_backend("olla")


def test_show_is_a_table_or_one_object(fleet: Command) -> None:
    table = fleet("show", "scripted-embed", *ON)
    whole = fleet("show", "scripted-embed", *ON, "--json")

    assert "model_info.scripted.context_length" in table.stdout
    assert json.loads(whole.stdout)["capabilities"] == ["embedding"]


def test_load_and_unload_show_in_ps(fleet: Command) -> None:
    loaded = fleet("load", "scripted-tools", *ON, "--keep-alive", "60")
    warm = fleet("ps", *ON, "--json")
    unloaded = fleet("unload", "scripted-tools", *ON)
    cold = fleet("ps", *ON, "--json")

    assert (loaded.returncode, loaded.stdout, unloaded.returncode) == (0, "", 0)
    assert "scripted-tools is loaded on olla" in loaded.stderr
    assert [json.loads(line)["model"] for line in warm.stdout.splitlines()] == ["scripted-tools"]
    assert cold.stdout == ""


def test_ps_looks_at_every_backend(fleet: Command) -> None:
    fleet("load", "scripted-think", *ON)
    fleet("load", "scripted-think", "--backend", "scripted")
    table = fleet("ps")
    for backend in ("olla", "scripted"):
        fleet("unload", "scripted-think", "--backend", backend)

    rows = [line.split()[:2] for line in table.stdout.splitlines()]
    assert ["scripted-think", "olla"] in rows
    assert ["scripted-think", "scripted"] in rows


def test_cp_create_and_rm_make_and_take_names(fleet: Command) -> None:
    made = fleet(
        "create", "pirate", "--from", "scripted-echo", "--system", "Say arr.", "-p", "stop=a", *ON
    )
    copied = fleet("cp", "pirate", "captain", *ON)
    said = fleet("chat", "ahoy", "--model", "captain", *ON)
    removed = [fleet("rm", name, *ON).returncode for name in ("pirate", "captain")]
    again = fleet("rm", "captain", *ON)

    assert [made.returncode, copied.returncode, *removed] == [0, 0, 0, 0]
    assert said.stdout == "ahoy\n"
    assert (again.returncode, "model_missing" in again.stderr) == (5, True)


def test_a_verb_that_could_mean_two_backends_asks_which(fleet: Command) -> None:
    asked = fleet("rm", "scripted-echo")

    assert asked.returncode == 2
    assert "olla, scripted" in asked.stderr


def test_run_pulls_what_is_missing_and_shows_how_far_it_is(fleet: Command) -> None:
    said = fleet("run", "fresh:model", "tell me", *ON)
    fleet("rm", "fresh:model", *ON)

    assert said.returncode == 0
    assert "scripted" in said.stdout
    for word in ("pulling", "100%"):
        assert word in said.stderr


def test_chat_pulls_only_when_told(fleet: Command) -> None:
    refused = fleet("chat", "x", "--model", "other:model", *ON)
    told = fleet("chat", "x", "--model", "other:model", *ON, "--on-missing", "pull")
    fleet("rm", "other:model", *ON)

    assert refused.returncode != 0
    assert told.returncode == 0


def test_pull_has_a_bar_a_layer_and_one_for_the_whole(fleet: Command) -> None:
    pulled = fleet("pull", "bars:model", *ON)
    events = fleet("pull", "bars:model", *ON, "--json").stdout.splitlines()
    fleet("rm", "bars:model", *ON)

    for word in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "total", "5.0/5.0 MB"):
        assert word in pulled.stderr
    assert json.loads(events[-1])["type"] == "done"


def test_ls_is_models(fleet: Command) -> None:
    assert fleet("ls", *ON, "--json").stdout == fleet("models", *ON, "--json").stdout


def test_chat_takes_pictures_and_thinks(fleet: Command, tmp_path: Path) -> None:
    cat = tmp_path / "cat.png"
    cat.write_bytes(b"\x89PNG\r\n\x1a\n")
    asked = ("chat", "what is it?", "--model", "scripted-think", "--backend", "scripted")
    said = fleet(*asked, "--image", str(cat), "--think", "low")
    wrong = fleet(*asked, "--image", str(tmp_path / "dog.png"))
    vague = fleet(*asked, "--think", "hard")

    assert said.returncode == 0
    # A long path is broken over the lines of a box.
    assert (wrong.returncode, "dog.png" in re.sub(r"[\s│]", "", wrong.stderr)) == (2, True)
    assert vague.returncode == 2


def test_a_picture_is_a_file_or_an_address(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n")
    message = user_message("look", [image_data(str(file)), image_data("https://h/b.png")])

    assert message.images == (base64.b64encode(file.read_bytes()).decode(), "https://h/b.png")
    assert message.text == "look"


def test_parameters_are_json_or_text() -> None:
    given = ["temperature=0.2", "stop=a", "stop=b", "note=x=y"]

    assert parameters(given) == {"temperature": 0.2, "stop": ["a", "b"], "note": "x=y"}


def test_facts_are_flat_and_short() -> None:
    details = {"a": {"b": 1, "c": None}, "license": "one\ntwo", "list": ["x"]}

    assert facts(details) == [("a.b", "1"), ("license", "one ..."), ("list", '["x"]')]


def test_the_client_keeps_models(up: Up) -> None:
    with Client(up.url) as fleet:
        fleet.copy("scripted-echo", "twin", backend="olla")
        fleet.load("twin", backend="olla")
        names = [each["name"] for each in fleet.running("olla")["models"]]
        shown = fleet.show("twin", backend="olla")
        fleet.create("third", "twin", backend="olla")
        fleet.unload("twin", backend="olla")
        ends = {fleet.delete(name, backend="olla").status for name in ("twin", "third")}

    assert names == ["twin"]
    assert shown["details"]["family"] == "scripted"
    assert ends == {"done"}
