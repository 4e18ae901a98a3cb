"""What the fleet is made of, as callers see it."""

from support.shim import problem, stage

from contract.roster import ModelReport


async def test_workers_of_one_backend_are_one_pool(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("ollama", "a", "b", name="w1", capabilities=("chat",))
        await at.announce("ollama", "b", name="w2", capabilities=("chat", "embed"), healthy=False)
        [backend] = (await at.http.get("/api/v1/backends")).json()["backends"]

        assert (backend["name"], backend["healthy"]) == ("ollama", True)
        assert backend["capabilities"] == ["chat", "embed"]
        assert backend["models"] == ["a", "b"]
        assert backend["queues"] == ["ollama.chat", "ollama.embed"]
        assert backend["workers"] == ["w1", "w2"]


async def test_models_have_their_backend_and_whether_they_are_warm(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("a", ModelReport(name="m", warm=False, context_length=8), name="w1")
        await at.announce("a", ModelReport(name="m", warm=True), name="w2")
        await at.announce("b", "n", name="w3")
        everything = (await at.http.get("/api/v1/models")).json()["models"]
        of_b = (await at.http.get("/api/v1/models", params={"backend": "b"})).json()["models"]

        assert [(m["backend"], m["name"], m["warm"], m["workers"]) for m in everything] == [
            ("a", "m", True, 2),
            ("b", "n", None, 1),
        ]
        assert of_b == everything[1:]


async def test_models_of_no_backend_are_404(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.get("/api/v1/models", params={"backend": "x"})

        problem(answer, 404, "unknown_backend")


async def test_queues_have_their_jobs_and_workers(shim: str, redis_url: str) -> None:
    # KEDA #6719, #647: scale on load and on the oldest job's age, not on length.
    # litellm #361, #31830: a queue whose depth one can see.
    async with stage(shim, redis_url) as at:
        await at.announce(capabilities=("chat",))
        for _ in range(3):
            await at.relay.enqueue()
        await at.relay.claim()
        [queue] = (await at.http.get("/api/v1/queues")).json()["queues"]

        assert (queue["name"], queue["depth"], queue["in_flight"]) == ("scripted.chat", 2, 1)
        assert (queue["slots"], queue["workers"]) == (1, 1)
        assert queue["oldest_s"] >= 0


async def test_workers_are_listed_as_they_report_themselves(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        report = await at.announce()
        listed = (await at.http.get("/api/v1/workers")).json()["workers"]

        assert listed == [report.model_dump(mode="json")]
