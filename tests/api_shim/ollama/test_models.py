"""Models as Ollama lists them, from what workers report."""

import json
from typing import Any

import pytest

from api_shim.http.problems import Refusal
from api_shim.ollama import embed, models
from api_shim.submission.roster_cache import Pool
from contract.embeddings import pack
from contract.events import Details, Done, Vectors
from contract.models import LoadRequest, ShowRequest
from contract.result import Result, fold
from contract.roster import BackendReport, ModelReport

CHAT = ModelReport(
    name="a:latest", traits=("chat", "tools"), warm=True, context_length=8192, size_bytes=7
)
EMBED = ModelReport(name="b", traits=("embed",), dimension=64)


def pool(name: str, *reports: ModelReport, can: tuple[Any, ...] = ("chat",)) -> Pool:
    made = Pool(name)
    made.reports.append(
        BackendReport(
            name=name, type="t", endpoint="e", healthy=True, capabilities=can, models=reports
        )
    )
    return made


def test_a_model_of_several_backends_is_listed_once() -> None:
    listed = json.loads(models.tags_response([pool("x", CHAT), pool("y", CHAT, EMBED)], 0))[
        "models"
    ]

    assert [model["name"] for model in listed] == ["a:latest", "b"]
    assert listed[0]["size"] == 7
    assert listed[0]["capabilities"] == ["completion", "tools"]
    assert listed[1]["details"]["embedding_length"] == 64


def test_only_models_in_memory_run() -> None:
    (model,) = json.loads(models.ps_response([pool("x", CHAT, EMBED)], 0))["models"]

    assert (model["name"], model["context_length"]) == ("a:latest", 8192)
    assert model["expires_at"] > "2200"


def test_no_models_is_a_list_and_not_null() -> None:
    assert (
        json.loads(models.tags_response([], 0))
        == json.loads(models.ps_response([], 0))
        == {"models": []}
    )


def test_what_a_backend_answers_overrides_what_workers_report() -> None:
    told = fold(
        [Details(details={"template": "T", "model_info": {"x": 1}, "license": None}), Done()]
    )
    shown = json.loads(models.show_response("b", [EMBED], told, 0))

    assert (shown["template"], shown["model_info"], shown["license"]) == ("T", {"x": 1}, "")
    assert shown["capabilities"] == ["embedding"]


def test_a_model_that_no_backend_shows_is_shown_from_reports() -> None:
    shown = json.loads(models.show_response("a", [CHAT], None, 0))

    assert shown["model_info"] == {"general.architecture": "fleet", "fleet.context_length": 8192}
    assert shown["capabilities"] == ["completion", "tools"]


def test_what_no_backend_of_a_model_can_do_needs_no_job() -> None:
    hosted, box = pool("x", CHAT), pool("y", EMBED, can=("load",))

    assert models.is_unsupported(LoadRequest(model="a"), [hosted, box])
    assert not models.is_unsupported(LoadRequest(model="b"), [hosted, box])
    assert not models.is_unsupported(ShowRequest(model="a", backend="y"), [hosted, box])
    assert not models.is_unsupported(ShowRequest(model="a"), [])
    with pytest.raises(Refusal, match="the model c"):
        models.is_unsupported(LoadRequest(model="c"), [hosted, box])


def test_vectors_have_length_one_but_not_the_old_way() -> None:
    row = Vectors(index=0, count=1, dimension=2, data=pack([[3.0, 4.0]]))
    result = fold([row, Done()])

    assert embedded(result) == [[0.6, 0.8]]
    assert json.loads(embed.embeddings_response(result)) == {"embedding": [3.0, 4.0]}
    assert embedded(None) == []


def embedded(result: Result | None) -> Any:
    """The vectors of the response."""
    return json.loads(b"".join(embed.embed_pieces("m", result)))["embeddings"]
