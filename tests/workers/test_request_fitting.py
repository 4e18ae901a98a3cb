"""A request is cut to what its model can say."""

import pytest

from contract.chat import ChatRequest, Message
from contract.errors import ModelMissing, WrongKind
from contract.roster import ModelReport
from workers.request_fitting import RequestFitting


@pytest.mark.parametrize(
    ("model", "wish", "got"),
    [
        ("small", 1000, 100),
        ("small", 50, 50),
        ("small", None, None),
        ("small:latest", 1000, 100),
        ("unknown", 1000, 1000),
        ("zero", 1000, 1000),
    ],
)
def test_a_wish_for_more_than_the_ceiling_is_cut(
    model: str, wish: int | None, got: int | None
) -> None:
    fitting = RequestFitting()
    fitting.learn(
        [
            ModelReport(name="small", max_output_tokens=100),
            ModelReport(name="zero", max_output_tokens=0),
        ]
    )
    request = ChatRequest(
        model=model, messages=(Message(role="user", content="x"),), max_tokens=wish
    )

    assert fitting.under_ceiling(request).max_tokens == got


def fitted(*models: ModelReport) -> RequestFitting:
    made = RequestFitting()
    made.learn(models)
    return made


CHATS = ModelReport(name="qwen3:latest", traits=("chat",))
EMBEDS = ModelReport(name="minilm:latest", traits=("embed",), lacks=("chat",))


def asking(model: str) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="x"),))


def test_a_job_for_a_model_of_another_kind_is_refused_before_the_backend_is_asked() -> None:
    with pytest.raises(WrongKind, match="minilm is for embed jobs, not for chat; models for chat"):
        fitted(CHATS, EMBEDS).demand_kind(asking("minilm"), ("chat", "embed"))


@pytest.mark.parametrize("model", ["qwen3", "unheard-of"])
def test_a_model_that_may_do_it_is_asked(model: str) -> None:
    made = fitted(CHATS, EMBEDS)
    made.demand_kind(asking(model), ("chat", "embed"))

    assert made.under_ceiling(asking(model)) == asking(model)


def test_a_model_that_the_backend_does_not_have_is_told_with_close_names() -> None:
    error = ModelMissing("model 'quen3' not found", upstream_status=404)
    told = fitted(CHATS, EMBEDS).missing(error, "quen3")

    assert told.message == "model 'quen3' not found; close names: qwen3:latest"
    assert told.upstream_status == 404
    assert fitted(CHATS).missing(error, "zephyr") is error
