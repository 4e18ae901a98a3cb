"""A lone surrogate, half of a character, is refused by its field's name in any JSON body."""

import json
from typing import Any

import pytest
from support.shim import stage

HALF = "half \ud83d"
SAID = [{"role": "user", "content": HALF}]
BODIES: dict[str, Any] = {
    "/api/v1/jobs/chat": {"model": "m", "messages": SAID},
    "/api/v1/jobs/embed": {"model": "m", "input": [HALF]},
    "/api/v1/jobs/image": {"model": "m", "prompt": HALF},
    "/v1/chat/completions": {"model": "m", "messages": SAID},
    "/v1/completions": {"model": "m", "prompt": HALF},
    "/v1/responses": {"model": "m", "input": HALF},
    "/v1/embeddings": {"model": "m", "input": HALF},
    "/v1/images/generations": {"model": "m", "prompt": HALF},
    "/v1/batches": {"input_file_id": HALF, "endpoint": "/v1/embeddings", "completion_window": "1h"},
    "/api/chat": {"model": "m", "messages": SAID},
    "/api/generate": {"model": "m", "prompt": HALF},
    "/api/embed": {"model": "m", "input": HALF},
    "/api/embeddings": {"model": "m", "prompt": HALF},
    "/api/show": {"model": HALF},
    "/api/v1/keys": {"tenant": "t", "name": HALF},
}


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_that_holds_one_is_a_bad_request(shim: str, redis_url: str, path: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = json.dumps(BODIES[path])
        told = await at.http.post(path, content=body, headers={"content-type": "application/json"})

        assert (told.status_code, "JSON" in told.text) == (400, True)
