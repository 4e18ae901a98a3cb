"""An address to which nothing will be posted is refused where a request names it, on every surface.

Subjects: api_shim/submission/receiver_address.py, relay/webhooks/webhook_store.py.
"""

import json
from typing import Any

import pytest
from support.shim import CHAT, stage

ADDRESSES = [
    "http://127.0.0.1:8080/",
    "http://[::ffff:127.0.0.1]/",
    "http://localhost/",
    "https://shim.localhost./x",
    "http://169.254.169.254/latest",
]
ROW = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
MESSAGES = {**CHAT, "max_tokens": 9}
NO_NAME = "http://xn--a/"
SURFACES: list[tuple[str, dict[str, Any], str]] = [
    ("/api/v1/jobs/chat", CHAT, "callback_url"),
    ("/api/v1/jobs/chat", CHAT, "X-Fleet-Webhook"),
    ("/v1/chat/completions", CHAT, "metadata.webhook"),
    ("/v1/chat/completions", CHAT, "X-Fleet-Webhook"),
    ("/v1/embeddings", {"model": "m", "input": "a"}, "X-Fleet-Webhook"),
    ("/v1/responses", {"model": "m", "input": "a", "background": True}, "metadata.webhook"),
    ("/api/chat", CHAT, "X-Fleet-Webhook"),
    ("/v1/messages", MESSAGES, "X-Fleet-Webhook"),
    ("/v1/messages/batches", {"requests": [{"custom_id": "a", "params": MESSAGES}]},
     "X-Fleet-Webhook"),
    ("/v1/batches", {"endpoint": "/v1/chat/completions", "completion_window": "24h"},
     "callback_url"),
    ("/v1/batches", {"endpoint": "/v1/chat/completions", "completion_window": "24h"},
     "metadata.webhook"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "named"), SURFACES)
async def test_it_is_refused_at_once(
    shim: str, redis_url: str, path: str, body: dict[str, Any], named: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("box", "m")
        await at.http.post("/api/v1/webhooks/callbacks/rotate")
        if path == "/v1/batches":
            files = {"file": ("rows.jsonl", json.dumps(ROW))}
            file = await at.http.post("/v1/files", files=files, data={"purpose": "batch"})
            body = {**body, "input_file_id": file.json()["id"]}
        answers = []
        for address in [*ADDRESSES, NO_NAME]:
            headers = {"X-Fleet-Webhook": address} if named == "X-Fleet-Webhook" else {}
            fields = {
                "callback_url": {"callback_url": address},
                "metadata.webhook": {"metadata": {"webhook": address}},
            }.get(named, {})
            answers.append(await at.http.post(path, json=body | fields, headers=headers))
        jobs = (await at.http.get("/api/v1/jobs")).json()["jobs"]

    assert {each.status_code for each in answers} <= {400, 422}
    assert "with xn-- is no name" in answers[-1].text
    for each in answers[:-1]:
        assert "public address" in each.text
        assert "FLEET_PRIVATE_WEBHOOKS" in each.text
    for each in answers:
        assert named.lower() in each.text.lower() or path == "/v1/batches"
    assert jobs == []
