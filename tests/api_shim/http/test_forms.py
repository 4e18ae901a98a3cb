"""What a call may bring is bounded, and the refusal names the limit or the field."""

import pytest
from support.shim import stage

FILE = {"file": ("a.jsonl", b"{}\n")}
IMAGE = {"image": ("a.png", b"\x89PNG")}


@pytest.mark.parametrize(("path", "files"), [("/v1/files", FILE), ("/v1/images/edits", IMAGE)])
async def test_a_form_of_too_many_fields_is_refused_with_the_limit(
    path: str, files: dict[str, tuple[str, bytes]], shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        fields = {"purpose": "batch", **{f"x{number}": "1" for number in range(150)}}
        answer = await at.http.post(path, data=fields, files=files)

        assert answer.status_code == 400
        assert "100" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([True], "input: must be one text or a list of texts; item 0 is no text"),
        (["a", ["b"]], "input: must be one text or a list of texts; item 1 is no text"),
        (True, "input: must be one text or a list of texts"),
    ],
)
async def test_an_input_that_is_no_text_is_named_once(
    given: object, message: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.post("/api/embed", json={"model": "m", "input": given})

        assert (answer.status_code, answer.json()["error"]) == (400, message)
