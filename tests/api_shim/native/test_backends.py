"""Adding and removing backends where no `fleet up` listens."""

from pathlib import Path

from support.shim import problem, serving, stage

BODY = {"name": "box", "dsn": "openai://sk-sesame@h/v1"}


async def test_a_shim_on_its_own_refuses_with_the_remedy(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        added = await at.http.post("/api/v1/backends", json=BODY)
        await at.announce("box")
        removed = await at.http.delete("/api/v1/backends/box")

        for answer in (added, removed):
            assert "LLM_<NAME>" in problem(answer, 409, "not_supervised")["detail"]
        assert "sesame" not in added.text


async def test_a_name_on_the_roster_is_taken(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("box")

        problem(await at.http.post("/api/v1/backends", json=BODY), 409, "name_taken")


async def test_a_fleet_up_that_has_ended_is_reported(redis_url: str, tmp_path: Path) -> None:
    with serving(redis_url, control=tmp_path / "control.sock") as shim:
        async with stage(shim, redis_url) as at:
            answer = await at.http.post("/api/v1/backends", json=BODY)

            problem(answer, 503, "control_lost")
            assert "sesame" not in answer.text
