"""What is read of the messages of other Celery applications besides their request."""

import base64
import json

from support.relay import relay_on

from contract.errors import PayloadTooLarge
from contract.redis_keys import job_id
from contract.webhooks.webhook_models import NewWebhook
from relay.webhooks.webhook_store import WebhookStore
from workers.foreign_tasks import ForeignTasks, foreign

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


async def test_the_end_of_a_producers_job_is_told_to_webhooks_of_its_tenant(redis_url: str) -> None:
    fields = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with relay_on(redis_url) as relay:
        store = WebhookStore(relay.connection)
        await store.create("ada", NewWebhook(url="https://example.com"))
        tasks = ForeignTasks(relay.connection)
        for tenant in ("ada", "ben"):
            await tasks.adopt("chat", f"task-{tenant}", "scripted.chat", fields, tenant)
        told = [(await relay.records.get(job_id(f"task-{t}"))).webhook for t in ("ada", "ben")]

    assert told == ["job", None]


async def test_arguments_of_a_producers_calls_have_the_bounds_of_a_body(redis_url: str) -> None:
    call = {"name": "f", "arguments": '{"a":[' + "[]," * 100_000 + "[]]}"}
    fields = {"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}
    async with relay_on(redis_url) as relay:
        await ForeignTasks(relay.connection).adopt("chat", "t", "scripted.chat", fields, "ada")
        result = await relay.result(job_id("t"))

    assert result.error is not None
    assert result.error.code == PayloadTooLarge.code
