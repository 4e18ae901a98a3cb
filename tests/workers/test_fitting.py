"""A request is cut to what its model can say."""

import pytest

from contract.chat import ChatRequest, Message
from contract.roster import ModelReport
from workers.fitting import Fitting


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
    fitting = Fitting()
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
