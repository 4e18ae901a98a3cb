"""Requests for an alias: which target takes them, on every surface; what clients are told.

Subjects: api_shim/submission/alias_targets.py, api_shim/following/answering_model.py.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support.relay import words
from support.shim import CHAT, Stage, problem, serving, stage

from contract.events import Vectors
from contract.roster import ModelReport
from relay.aliases.moves import MovableJob, Moves
from relay.claims import StartedJob

ALIASES: dict[str, Any] = {
    "fast": {
        "model": "big", "backend": "one", "default": {"temperature": 0.5}, "force": {"seed": 7},
        "fallbacks": [{"model": "small", "backend": "two"}, {"model": "tiny"}],
    },
    "claude-*": "fast",
    "sees": {"model": "blind", "fallbacks": ["seeing"]},
    "lost": {"model": "nowhere", "fallbacks": ["neither"]},
}  # fmt: skip
ENQUEUE = "/api/v1/jobs/chat"


@pytest.fixture(scope="module")
def url(redis_server: Any) -> Iterator[str]:
    with serving(redis_server.url, aliases=ALIASES) as address:
        yield address


def chat(model: str = "fast", **fields: Any) -> dict[str, Any]:
    return {**CHAT, "model": model, **fields}


async def started(at: Stage, queue: str) -> StartedJob:
    job = await at.relay.start_next(queue, "w1")
    assert job is not None
    return job


async def record_of(at: Stage, body: dict[str, Any], path: str = ENQUEUE) -> dict[str, Any]:
    answer = await at.http.post(path, json=body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = (await at.http.get(f"/api/v1/jobs/{answer.json()['id']}")).json()
    return found | {"headers": dict(answer.headers), "why": answer.json()["reason"]}


async def test_a_request_goes_to_the_first_target_that_takes_jobs(url: str, redis_url: str) -> None:
    async with stage(url, redis_url) as at:
        await at.announce("one", "big", healthy=False)
        await at.announce("two", "small")
        down = await record_of(at, chat())
        await at.announce("one", "big")
        up = await record_of(at, chat("claude-opus-4:latest"))

    assert (
        down["alias"], down["model"], down["queue"], down["target"],
    ) == ("fast", "small", "two.chat", 0)  # fmt: skip
    assert "fallback: no worker takes jobs of one.chat now" in down["why"]
    assert tuple(down["headers"][f"x-fleet-{n}"] for n in ("model", "backend")) == ("small", "two")
    assert (up["alias"], up["model"], up["queue"]) == ("claude-opus-4:latest", "big", "one.chat")


async def test_a_request_waits_for_the_first_target_if_none_takes_jobs(
    url: str, redis_url: str
) -> None:
    async with stage(url, redis_url) as at:
        for backend, model in (("two", "small"), ("one", "big")):
            report = await at.announce(backend, model)
            await at.relay.roster.leave(report.name)
        waits = await record_of(at, chat())
        refused = await at.http.post(ENQUEUE, json=chat(on_no_worker="refuse"))

    assert (waits["queue"], waits["model"]) == ("one.chat", "big")
    assert "waiting for a worker to start" in waits["why"]
    assert "fast is an alias of big on one" in problem(refused, 503, "no_worker")["detail"]


async def test_a_full_queue_passes_the_request_on(redis_url: str) -> None:
    with serving(redis_url, aliases=ALIASES, queue_limit=1) as own:
        async with stage(own, redis_url) as at:
            await at.announce("one", "big")
            await at.announce("two", "small")
            queues = [(await record_of(at, chat()))["queue"] for _ in range(2)]
            full = await at.http.post(ENQUEUE, json=chat())

    assert queues == ["one.chat", "two.chat"]
    assert problem(full, 429, "queue_full")["queue"] == "two.chat"


async def test_abilities_are_judged_on_the_first_target_that_is_here(
    url: str, redis_url: str
) -> None:
    image = {"type": "image", "image": "iVBORw0KGgo="}
    body = chat("sees", messages=[{"role": "user", "content": [image]}])
    seeing = ModelReport(name="seeing", traits=("chat", "vision"))
    async with stage(url, redis_url) as at:
        await at.announce("one", seeing)
        fitting = await record_of(at, body)
        await at.announce("two", ModelReport(name="blind", traits=("chat",), lacks=("vision",)))
        refused = await at.http.post(ENQUEUE, json=body)

    assert fitting["model"] == "seeing"
    assert "sees is an alias of blind: " in problem(refused, 400, "not_supported")["detail"]


async def test_what_cannot_be_used_is_explained(url: str, redis_url: str) -> None:
    async with stage(url, redis_url) as at:
        await at.announce("one", "big")
        lost = await at.http.post(ENQUEUE, json=chat("lost"))
        elsewhere = await at.http.post(ENQUEUE, json=chat(backend="three", model="big"))
        route = {"alias": "x", "targets": [{"model": "big", "backend": "one", "wait_s": 1}]}
        forged = await at.http.post(ENQUEUE, json=chat("big", route=route))
        deleted = await at.http.post("/api/v1/jobs/delete", json={"model": "fast"})

    assert "lost is an alias of nowhere" in problem(lost, 404, "unknown_model")["detail"]
    assert elsewhere.status_code in (404, 503)
    assert "route" in problem(forged, 422, "invalid_request")["detail"]
    assert "fast is an alias" in problem(deleted, 404, "unknown_model")["detail"]


async def test_a_backend_that_the_client_names_restricts_the_targets(
    url: str, redis_url: str
) -> None:
    async with stage(url, redis_url) as at:
        await at.announce("one", "big", "tiny")
        await at.announce("two", "small", "tiny")
        named = await record_of(at, chat(backend="two"))
        body, headers = chat(), {"X-Fleet-Backend": "three"}
        other = await at.http.post(ENQUEUE, json=body, headers=headers)

    assert (named["model"], named["backend"]) == ("small", "two")
    assert other.status_code in (404, 503)


async def test_the_request_is_kept_as_it_was_sent_and_run_as_the_target_wants(
    url: str, redis_url: str
) -> None:
    async with stage(url, redis_url) as at:
        await at.announce("one", "big")
        record = await record_of(at, chat(temperature=1, seed=1))
        shown = (await at.http.get(f"/api/v1/jobs/{record['id']}/request")).json()["request"]
        stored = await at.relay.records.request(record["id"])

    assert {name: shown[name] for name in shown if name != "messages"} == {
        "model": "fast",
        "temperature": 1,
        "seed": 1,
    }
    assert stored.route is not None
    assert stored.route.targets[0].force == {"seed": 7}


async def test_a_repeated_key_finds_its_job_whatever_the_alias_means_now(redis_url: str) -> None:
    headers = {"Idempotency-Key": "k"}
    with serving(redis_url) as own:
        async with stage(own, redis_url) as at:
            await at.announce("one", "big")
            await at.announce("two", "small")
            ids, replayed = [], []
            for model in ("big", "small"):
                await at.http.put("/api/v1/aliases/name", json={"model": model})
                answer = await at.http.post(ENQUEUE, json=chat("name"), headers=headers)
                ids.append(answer.json()["id"])
                replayed.append(answer.headers.get("idempotent-replayed"))
            await at.http.delete("/api/v1/aliases/name")
            gone = await at.http.post(ENQUEUE, json=chat("name"), headers=headers)

    assert ids[0] == ids[1] == gone.json()["id"]
    assert replayed == [None, "true"]
    assert gone.headers["x-fleet-model"] == "big"


SURFACES: dict[str, tuple[str, dict[str, Any], dict[str, str], str]] = {
    "chat": ("/v1/chat/completions", CHAT, {}, "small"),
    "completion": ("/v1/completions", {"prompt": "hi"}, {}, "small"),
    "responses": ("/v1/responses", {"input": "hi"}, {}, "small"),
    "messages": ("/v1/messages", CHAT | {"max_tokens": 9}, {"anthropic-version": "1"}, "small"),
    "ollama": ("/api/chat", CHAT, {}, "fast"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("surface", SURFACES)
async def test_every_surface_tells_which_model_answered_after_a_move(
    url: str, redis_url: str, surface: str, *, stream: bool
) -> None:
    path, body, headers, model = SURFACES[surface]
    async with stage(url, redis_url) as at:
        await at.announce("one", "big")
        await at.announce("two", "small")
        asked = body | {"model": "fast", "stream": stream}
        call = asyncio.create_task(at.http.post(path, json=asked, headers=headers))
        async with asyncio.timeout(10):
            while (first := await at.relay.start_next("one.chat", "w1")) is None:
                await asyncio.sleep(0.01)
        moves = Moves(at.relay.connection)
        job = MovableJob.of(first.record, await at.relay.records.request(first.record.id))
        assert job is not None
        assert await moves.move(job, 1, "it is down")
        await at.relay.run(await started(at, "two.chat"), *words(2))
        answer = await call

    # The head of a streamed response is sent with its first event, before the job has started.
    expected = ("big", "one") if (surface, stream) == ("responses", True) else ("small", "two")
    assert answer.status_code == 200, answer.text
    assert expected == (answer.headers["x-fleet-model"], answer.headers["x-fleet-backend"])
    last = [line for line in answer.text.splitlines() if '"model":' in line][-1]
    assert f'"model":"{model}"' in last.replace(" ", "")


async def test_an_embed_alias_tells_its_model(redis_url: str) -> None:
    with serving(redis_url, aliases={"vectors": "minilm"}) as own:
        async with stage(own, redis_url) as at:
            await at.announce("one", "minilm")
            body = {"model": "vectors", "input": "a"}
            call = asyncio.create_task(at.http.post("/v1/embeddings", json=body))
            async with asyncio.timeout(10):
                while (job := await at.relay.start_next("one.embed", "w1")) is None:
                    await asyncio.sleep(0.01)
            row = Vectors(index=0, count=1, dimension=1, data="AACAPw==")
            await at.relay.run(job, row)
            answer = await call

    assert (answer.json()["model"], answer.headers["x-fleet-model"]) == ("minilm", "minilm")


async def test_lists_have_aliases_with_the_abilities_of_their_model(
    url: str, redis_url: str
) -> None:
    big = ModelReport(name="big", traits=("chat", "vision"), context_length=4096)
    anthropic = {"anthropic-version": "1"}
    async with stage(url, redis_url) as at:
        await at.announce("one", big, capabilities=("chat",))
        await at.announce("two", "small", "fast", capabilities=("chat",))
        await at.http.get("/api/v1/aliases")  # forgets those of other tests
        openai = (await at.http.get("/v1/models")).json()["data"]
        card = (await at.http.get("/v1/models/claude-sonnet-4-5", headers=anthropic)).json()
        tags = (await at.http.get("/api/tags")).json()["models"]
        shown = (await at.http.post("/api/show", json={"model": "claude-x"})).json()
        native = (await at.http.get("/api/v1/models")).json()["models"]
        shadowing = (await at.http.get("/api/v1/aliases/fast")).json()["shadows"]

    assert {("fast", "one"), ("big", "one"), ("small", "two")} == {
        (each["id"], each["owned_by"]) for each in openai
    }
    assert (card["max_input_tokens"], card["capabilities"]["image_input"]["supported"]) == (
        4096, True,
    )  # fmt: skip
    assert {"fast", "big", "small"} == {each["name"] for each in tags}
    assert shown["model_info"]["fleet.context_length"] == 4096
    assert {"fast", "big", "small"} == {each["name"] for each in native}
    assert shadowing
