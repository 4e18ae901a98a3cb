"""The three answers to a wrong model: nobody has it, it is for other kinds, no such verb here."""

from pathlib import Path

import pytest
from support.up import Command

ON = ("-b", "scripted", "-m")
NOBODY = "No live backend has the model nobody-has-this"


@pytest.fixture
def texts(tmp_path: Path) -> tuple[str, ...]:
    """`fleet embed` of a file of texts, without its model."""
    (tmp_path / "t.txt").write_text("a\nb\n")
    return ("embed", str(tmp_path / "t.txt"), "-o", str(tmp_path / "o.npy"))


def refused(fleet: Command, *words: str) -> str:
    said = fleet(*words)
    assert said.returncode == 1, said.stderr
    return said.stderr.rpartition("error: ")[2]


def test_a_model_that_nobody_has(fleet: Command, texts: tuple[str, ...]) -> None:
    for words in (("chat", "x", "-m"), (*texts, "-m"), ("unload",)):
        assert refused(fleet, *words, "nobody-has-this").startswith(NOBODY)


def test_a_refusal_recommends_commands(fleet: Command) -> None:
    said = refused(fleet, "chat", "x", "-m", "nobody-has-this")

    assert "`fleet models` lists them all; `fleet pull` fetches one" in " ".join(said.split())
    assert "/api/v1" not in said


def test_a_model_that_is_for_another_kind_of_job(fleet: Command, texts: tuple[str, ...]) -> None:
    chat = refused(fleet, "chat", "x", *ON, "scripted-embed")
    embed = refused(fleet, *texts, *ON, "scripted-echo")
    image = refused(fleet, "image", "x", "-o", texts[-1], *ON, "scripted-embed")

    assert chat.startswith("The model scripted-embed is for embed jobs, not for chat; models for")
    assert embed.startswith("The model scripted-echo is for chat jobs, not for embed; models for")
    assert image.startswith("The model scripted-embed is for embed jobs, not for image; models")


def test_a_verb_that_the_backend_cannot_do(fleet: Command, box: str) -> None:
    assert fleet("backends", "add", f"plain=vllm://{box}").returncode == 0
    try:
        said = refused(fleet, "unload", "scripted-echo", "-b", "plain")
    finally:
        fleet("backends", "remove", "plain")

    assert said.startswith(
        "Backend plain cannot do unload; it can do chat, embed, list, count, rerank."
    )
