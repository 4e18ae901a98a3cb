"""A request is fitted to the limits and the kind of its model."""

import pytest

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest, Task
from contract.errors import ModelMissing, WrongKind
from contract.roster import ModelReport
from workers.request_fitting import RequestFitting


@pytest.mark.parametrize(
    ("model", "requested", "expected"),
    [
        ("small", 1000, 100),
        ("small", 50, 50),
        ("small", None, None),
        ("small:latest", 1000, 100),
        ("unknown", 1000, 1000),
        ("zero", 1000, 1000),
    ],
)
def test_max_tokens_is_cut_to_the_ceiling_of_the_model(
    model: str, requested: int | None, expected: int | None
) -> None:
    fitting = RequestFitting()
    fitting.learn(
        [
            ModelReport(name="small", max_output_tokens=100),
            ModelReport(name="zero", max_output_tokens=0),
        ]
    )
    request = ChatRequest(
        model=model, messages=(Message(role="user", content="x"),), max_tokens=requested
    )

    assert fitting.under_ceiling(request).max_tokens == expected


def fitted(*models: ModelReport) -> RequestFitting:
    made = RequestFitting()
    made.learn(models)
    return made


CHATS = ModelReport(name="qwen3:latest", traits=("chat",))
PROMPTS: dict[str, dict[Task, str]] = {"nomic:latest": {"query": "search_query: "}}
EMBEDS = ModelReport(name="minilm:latest", traits=("embed",), lacks=("chat",))


def request_for(model: str) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="x"),))


def test_a_job_for_a_model_of_another_kind_is_refused_without_a_request() -> None:
    with pytest.raises(WrongKind, match="minilm is for embed jobs, not for chat; models for chat"):
        fitted(CHATS, EMBEDS).demand_kind(request_for("minilm"), ("chat", "embed"))


@pytest.mark.parametrize("model", ["qwen3", "unheard-of"])
def test_a_model_that_is_not_known_to_lack_the_kind_gets_the_request(model: str) -> None:
    made = fitted(CHATS, EMBEDS)
    made.demand_kind(request_for(model), ("chat", "embed"))

    assert made.under_ceiling(request_for(model)) == request_for(model)


def test_the_error_of_a_missing_model_has_close_names() -> None:
    error = ModelMissing("model 'quen3' not found", upstream_status=404)
    named = fitted(CHATS, EMBEDS).missing(error, "quen3")

    assert named.message == "model 'quen3' not found; close names: qwen3:latest"
    assert named.upstream_status == 404
    assert fitted(CHATS).missing(error, "zephyr") is error


@pytest.mark.parametrize(
    ("model", "task", "text", "left"),
    [
        ("nomic", "query", "search_query: a", None),
        ("nomic", "document", "a", "document"),
        ("other", "query", "a", "query"),
        ("nomic", None, "a", None),
    ],
)
def test_a_task_is_the_prompt_that_is_configured_for_the_model(
    model: str, task: Task | None, text: str, left: Task | None
) -> None:
    fitting = RequestFitting(prompts=PROMPTS)
    fitted_request = fitting.with_prompt(EmbedRequest(model=model, input=("a",), task=task))

    assert (fitted_request.input, fitted_request.task) == ((text,), left)
