"""The five lines of `fleet up`: what they say in each case, and that they fit."""

import pytest

from api_shim.submission.roster_cache import Pool
from contract.roster import BackendReport, EndpointReport, ModelReport
from fleet.local.greeting import fit_list, greeting
from fleet.local.launch_plan import STAND_IN, PlannedBackend

URL = "http://127.0.0.1:8700"


def pool(name: str, *models: ModelReport, error: str | None = None) -> Pool:
    address = "http://127.0.0.1:11434"
    found = Pool(name)
    found.workers.append(f"{name}-1")
    found.reports.append(
        BackendReport(
            name=name,
            type="ollama",
            endpoint=address,
            endpoints=(EndpointReport(address=address, healthy=error is None, error=error),),
            healthy=error is None,
            error=error,
            capabilities=("chat", "embed", "pull"),
            models=models,
        )
    )
    return found


def said(
    *pools: Pool, why: str = "configured", key: bool = False, url: str = URL
) -> dict[str, str]:
    planned = [PlannedBackend(each.name, why=why) for each in pools]
    lines = greeting([url], planned, {each.name: each for each in pools}, needs_key=key, width=80)
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    return {line[:10].strip(): line[10:] for line in lines}


CHATS = ModelReport(name="qwen3:8b", traits=("chat",))
EMBEDS = ModelReport(name="minilm", traits=("embed",))


def test_each_line_has_its_fact() -> None:
    told = said(pool("box", EMBEDS, CHATS))

    assert told == {
        "address": f"{URL} (Ctrl-C ends it; `fleet logs -f`)",
        "page": f"{URL}/ (/docs has the API)",
        "backends": "box 127.0.0.1:11434",
        "models": "qwen3:8b, minilm",
        "try": 'fleet chat "Why is the sky blue?"',
    }


def test_when_no_backend_was_found_it_says_what_to_do() -> None:
    told = said(pool("scripted", CHATS), why=STAND_IN)

    assert "none found (scripted is used): start Ollama" in told["backends"]


def test_a_backend_that_is_down_is_said_with_its_reason() -> None:
    told = said(pool("box", error="connection refused"))

    assert told["backends"] == "box 127.0.0.1:11434 (down: connection refused)"
    assert told["models"] == "none yet: `fleet backends` shows why"
    assert "fleet pull" in said(pool("box"))["models"]


@pytest.mark.parametrize(
    ("model", "command"),
    [
        (EMBEDS, "fleet embed texts.txt -o vectors.npy"),
        (ModelReport(name="x"), 'fleet chat "Why is the sky blue?"'),
        (ModelReport(name="x", traits=("image",)), 'fleet image "a lighthouse" -o lighthouse.png'),
    ],
)
def test_the_first_command_is_one_that_works_with_what_is_there(
    model: ModelReport, command: str
) -> None:
    assert said(pool("box", model))["try"] == command


def test_the_first_command_names_what_the_shell_does_not_know() -> None:
    told = said(pool("box", CHATS), key=True, url="http://127.0.0.1:1")

    assert told["try"].startswith("FLEET_URL=http://127.0.0.1:1 FLEET_API_KEY=... fleet chat ")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("/d", " (Ctrl-C ends it; `fleet logs -f --data-dir /d`)"), ("/x" * 40, " (Ctrl-C ends it)")],
)
def test_logs_that_lie_elsewhere_are_found_from_the_first_line(folder: str, expected: str) -> None:
    first = greeting([URL], [], {}, needs_key=False, width=80, folder=folder)[0]

    assert first.endswith(expected)
    assert len(first) <= 80


def test_many_models_are_counted_and_the_line_still_fits() -> None:
    many = [ModelReport(name=f"a-model-with-a-name-{n}", traits=("chat",)) for n in range(300)]

    assert said(pool("box", *many))["models"].endswith(" and 298 more")


@pytest.mark.parametrize("room", range(20, 60))
def test_a_list_never_is_longer_than_its_room(room: int) -> None:
    names = ["a" * 30, "b" * 20, "c"]

    for count in range(4):
        assert len(fit_list(names[:count], room)) <= room
