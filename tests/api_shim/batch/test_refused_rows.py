"""A row of a batch is refused in the words of its endpoint.

Subjects: api_shim/batch/job_window.py.
"""

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api_shim.anthropic.message_body import MessagesBody
from api_shim.batch.job_window import _refusal
from api_shim.http.problems import _invalid
from api_shim.openai.chat_request import ChatBody

PARTS = [{"type": "text", "text": "a"}] * 10_010
TURN = {"role": "user", "content": PARTS}
WHOLE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [TURN]}


@pytest.mark.parametrize("kind", [MessagesBody, ChatBody])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (WHOLE, "messages.0.content: must have at most 10000 items"),
        ({**WHOLE, "messages": [TURN["role"]]}, "messages.0: "),
        ({**WHOLE, "model": None}, "model: Field required"),
        ({"max_tokens": "x", "model": {}, "messages": []}, "max_tokens: "),
    ],
)
def test_a_row_is_refused_in_the_words_of_its_endpoint(
    kind: type[MessagesBody | ChatBody], body: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(body)
    errors = [{**each, "loc": ("body", *each["loc"])} for each in refused.value.errors()]
    direct = _invalid(RequestValidationError(errors, body=body), {"type": "http"}, None)

    assert words in direct.detail
    assert _refusal(refused.value, body).detail == direct.detail
