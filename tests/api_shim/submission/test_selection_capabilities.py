"""What a model cannot do is refused at enqueue, with the field and the reason."""

from typing import Any

import pytest

from api_shim.http.problems import Refusal, problem_of
from api_shim.submission.roster_cache import pools
from api_shim.submission.selection import candidates, choose, missing
from contract.jobs import any_request
from contract.roster import BackendReport, ModelReport, QueueReport, WorkerReport

TEXT_ONLY = ModelReport(name="m", traits=("chat",), lacks=("vision", "tools", "thinking", "schema"))
UNKNOWN = ModelReport(name="m", traits=("chat",))
IMAGE = [{"role": "user", "content": [{"type": "image", "image": "iVBORw0KGgo="}]}]


def ask(**fields: Any) -> Any:
    body = {"kind": "chat", "model": "m", "messages": [{"role": "user", "content": "x"}]}
    return any_request.validate_python(body | fields)


def worker(backend: str, *models: ModelReport, can: str = "chat pull") -> WorkerReport:
    report = BackendReport(
        name=backend, type="t", endpoint="e", healthy=True, capabilities=can.split(), models=models
    )
    queues = [
        QueueReport(name=f"{backend}.{kind}", kind=kind, slots=1, in_flight=0)
        for kind in can.split()
    ]
    return WorkerReport(
        v=1, name=backend, host="h", pid=1, started_at=0, backends=(report,), queues=queues
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tools": [{"name": "f"}]}, "it does not support tools (needed by tools)"),
        ({"messages": IMAGE}, "it does not support vision (needed by messages)"),
        ({"think": "high"}, "it does not support thinking (needed by think)"),
        (
            {"response_format": {"type": "json_schema", "schema": {}}},
            "it does not support schema (needed by response_format)",
        ),
    ],
)
def test_a_chat_that_needs_what_its_model_lacks_is_refused_with_the_field(
    fields: dict[str, Any], told: str
) -> None:
    assert missing(ask(**fields), [TEXT_ONLY]) == [told]
    assert missing(ask(**fields), [UNKNOWN]) == []


def test_a_plain_chat_needs_nothing_special() -> None:
    assert missing(ask(think="off"), [TEXT_ONLY]) == []


def test_more_dimensions_than_the_model_has_are_refused() -> None:
    embed = any_request.validate_python(
        {"kind": "embed", "model": "m", "input": ["x"], "dimensions": 1024}
    )
    wrong = missing(embed, [ModelReport(name="m", dimension=384)])

    assert wrong == ["dimensions is 1024, and its vectors have 384"]


def test_a_backend_whose_model_can_is_found_among_those_that_cannot() -> None:
    fleet = pools([worker("plain", TEXT_ONLY), worker("able", UNKNOWN)])

    assert [pool.name for pool in candidates(ask(think="low"), fleet)] == ["able"]


def test_where_no_model_can_the_refusal_has_the_reason() -> None:
    fleet = pools([worker("plain", TEXT_ONLY)])
    for backend in (None, "plain"):
        with pytest.raises(Refusal, match="does not support thinking") as caught:
            choose(ask(think="low", backend=backend), fleet)

        problem = problem_of(caught.value, {})
        assert (problem.code, problem.status) == ("not_supported", 400)
        assert "it does not support thinking (needed by think)" in problem.detail


def test_a_missing_model_goes_where_it_can_be_pulled() -> None:
    fleet = pools([worker("fixed", can="chat"), worker("pulls")])

    assert [p.name for p in candidates(ask(model="new", on_missing="pull"), fleet)] == ["pulls"]
    with pytest.raises(Refusal, match="No live backend has the model new"):
        choose(ask(model="new"), fleet)
