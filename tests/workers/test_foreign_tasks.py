"""What is read of the messages of other Celery applications besides their request."""

import base64
import json

from workers.foreign_tasks import foreign

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def message(**headers: str) -> bytes:
    body = base64.b64encode(json.dumps([[], {"model": "m"}, {}]).encode()).decode()
    whole = {"task": "fleet.chat", "id": "1", **headers}
    return json.dumps({"headers": whole, "body": body}).encode()


def test_the_trace_in_a_tasks_headers_becomes_the_jobs() -> None:
    traced, plain = foreign(message(traceparent=PARENT)), foreign(message(traceparent="x"))

    assert traced is not None
    assert traced.trace is not None
    assert traced.trace.traceparent == PARENT
    assert plain is not None
    assert plain.trace is None
