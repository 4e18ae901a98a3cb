"""JSON of a newer version of the fleet: this version reads what it knows and does not fail."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from contract.events import Delta, Done, Failed, Frame, Unknown
from contract.jobs import any_request
from contract.result import fold
from contract.roster import WorkerReport
from contract.wire import decode

REPORT: dict[str, Any] = {
    "v": 2,
    "name": "w",
    "host": "h",
    "pid": 1,
    "started_at": 0,
    "mood": "good",
    "backends": [
        {
            "name": "b",
            "type": "t",
            "endpoint": "e",
            "healthy": True,
            "capabilities": ["chat", "moderate", "embed"],
            "models": [{"name": "m", "traits": ["chat", "smell"], "colour": 7}],
        }
    ],
    "queues": [
        {"name": "b.chat", "kind": "chat", "slots": 1, "in_flight": 0, "warmth": 1},
        {"name": "b.moderate", "kind": "moderate", "slots": 1, "in_flight": 0},
    ],
}


def frame(type: str, **fields: Any) -> Frame:
    body = json.dumps({"id": "1-2", "at": 1.0, "type": type, **fields}).encode()
    return Frame.from_wire(b"1-2 %s %s" % (type.encode(), body))


def test_a_report_is_read_without_what_is_not_known() -> None:
    report = decode(WorkerReport, json.dumps(REPORT))

    assert [queue.name for queue in report.queues] == ["b.chat"]
    assert report.backends[0].capabilities == ("chat", "embed")
    assert report.backends[0].models[0].traits == ("chat",)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"v": 2, "name": 7}'])
def test_an_invalid_report_is_none(text: str) -> None:
    with pytest.raises(ValidationError):
        decode(WorkerReport, text)


def test_an_event_of_an_unknown_type_is_passed_over_and_keeps_its_bytes() -> None:
    seen = frame("citation", url="u")

    assert seen.event == Unknown(type="citation", fields={"type": "citation", "url": "u"})
    assert b'"url": "u"' in seen.to_wire()


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (frame("delta", content="hi", mood="good"), Delta(content="hi")),
        (frame("done", finish_reason="tired", usage={"prompt_tokens": 3, "watts": 1}),
         Done.model_validate({"usage": {"prompt_tokens": 3}})),
        (frame("failed", code="c", message="m", remedy="r"), Failed(code="c", message="m")),
        (frame("phase", phase="warming"),
         Unknown(type="phase", fields={"type": "phase", "phase": "warming"})),
    ],
)  # fmt: skip
def test_of_a_known_event_what_is_known_is_read(told: Frame, read: Any) -> None:
    assert told.event == read


def test_an_answer_is_whole_around_what_is_not_known() -> None:
    told = [frame("delta", content="a"), frame("citation"), frame("delta", content="b", x=1)]

    result = fold([each.event for each in told] + [frame("done", finish_reason="tired").event])

    assert (result.content, result.status, result.finish_reason) == ("ab", "done", "stop")


def test_input_of_clients_is_still_strict() -> None:
    with pytest.raises(ValidationError):
        any_request.validate_python({"kind": "pull", "model": "m", "mood": "good"})
