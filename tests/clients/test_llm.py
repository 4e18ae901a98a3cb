"""`llm`, the command and the library, with a fleet as one more server that speaks OpenAI's API."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.fleet import Fleet, fleet

pytestmark = pytest.mark.client("llm")

BROKEN = "scripted-story:fail=context"
MODELS = ("scripted-echo", "scripted-tools", BROKEN)
LIBRARY = """
import llm

def look(query: str, number: int) -> str:
    "Look something up."
    return f"{number}: {query}"

model = llm.get_model("scripted-echo")
response = model.prompt("hello you")
print("".join(response), response.usage().output)
talk = model.conversation()
print(talk.prompt("first").text(), talk.prompt("second").text())
calls = llm.get_model("scripted-tools").prompt("hello you", tools=[look]).tool_calls()
print([(call.name, call.arguments["query"]) for call in calls])
"""


@pytest.fixture(scope="module", params=["ollama", "vllm"])
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("llm"), request.param, models=(BROKEN,)) as running:
        yield running


@pytest.fixture
def home(at: Fleet, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has told `llm` of a fleet."""
    models = [
        {
            "model_id": name, "model_name": name, "api_base": f"{at.url}/v1",
            "supports_schema": True, "supports_tools": True, "vision": True,
        }
        for name in MODELS
    ]  # fmt: skip
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    return {**os.environ, "LLM_USER_PATH": str(tmp_path)}


def say(home: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "llm"), *words]
    return subprocess.run(
        command, env=home, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--no-stream",), ("-s", "Be brief.")])
@pytest.mark.feature("chat", "streams")
def test_a_prompt_is_answered(home: dict[str, str], options: tuple[str, ...]) -> None:
    said = say(home, "-m", "scripted-echo", "hello you", *options)

    assert (said.returncode, said.stdout) == (0, "hello you\n"), said.stderr


@pytest.mark.feature("chat")
def test_a_conversation_goes_on_and_what_it_cost_is_logged(home: dict[str, str]) -> None:
    say(home, "-m", "scripted-echo", "first words")
    said = say(home, "-c", "hello you")
    logged = json.loads(say(home, "logs", "-n", "2", "--json").stdout)

    assert said.stdout == "hello you\n", said.stderr
    assert {entry["output_tokens"] for entry in logged} == {2}
    assert len({entry["conversation_id"] for entry in logged}) == 1


@pytest.mark.feature("schema", "vision")
def test_a_schema_and_a_picture_are_sent_on(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    words = '{"name": "x", "age": 3}'
    structured = say(home, "-m", "scripted-echo", words, "--schema", "name, age int")
    seen = say(home, "-m", "scripted-echo", "look", "-a", str(tmp_path / "p.png"))

    assert structured.returncode == 0, structured.stderr
    assert json.loads(structured.stdout) == {"name": "x", "age": 3}
    assert seen.stdout == "look [images: 1]\n", seen.stderr


@pytest.mark.feature("errors")
def test_what_fails_is_said_in_the_servers_words(home: dict[str, str]) -> None:
    said = say(home, "-m", BROKEN, "hello")

    assert said.returncode == 1
    assert "Error code: 400 - " in said.stderr
    assert "context" in said.stderr


@pytest.mark.feature("chat", "streams", "tools")
def test_the_library_chats_and_calls_tools(home: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY], env=home, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip

    assert done.stdout.splitlines() == [
        "hello you 2", "first second", "[('look', 'hello you')]",
    ], done.stderr  # fmt: skip
