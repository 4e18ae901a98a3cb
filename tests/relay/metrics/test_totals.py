"""The fleet's totals: added once, kept after their process, bounded in names."""

from support.relay import relay_on

from relay.connection import Connection
from relay.metrics.totals import OTHER, Field, FleetTotals, Increase, add

JOBS: Field = ("jobs_total", "", "chat", "q.chat", "done", "standard")


def tokens(model: str) -> Increase:
    return Increase(("tokens_total", "", "q.chat", model, "in"), 1.0, "model", 3)


async def values(connection: Connection) -> dict[Field, float]:
    return (await FleetTotals(connection).read()).values


async def test_what_several_processes_count_is_one_total(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for amount in (2.0, 0.5):
            await FleetTotals(relay.connection).add([Increase(JOBS, amount)])

        assert await values(relay.connection) == {JOBS: 2.5}


async def test_a_report_that_is_sent_twice_is_added_once(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        report = add("p", 1, [Increase(JOBS, 1.0)], most_names=1, now=0.0)
        answers = [await relay.connection.call(report) for _ in range(2)]

        assert answers == [True, False]
        assert await values(relay.connection) == {JOBS: 1.0}


async def test_names_beyond_the_most_are_one_in_the_whole_fleet(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for models in (["a", "b"], ["c", "a", "d"]):
            await FleetTotals(relay.connection, most_names=2).add([tokens(m) for m in models])
        found = {field[3]: value for field, value in (await values(relay.connection)).items()}

        assert found == {"a": 2.0, "b": 1.0, OTHER: 2.0}


async def test_every_key_has_an_end(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await FleetTotals(relay.connection).add([Increase(JOBS, 1.0)])
        keys = await relay.connection.command("KEYS", "fleet:metrics*")
        ends = [await relay.connection.command("TTL", key) for key in keys]

        assert len(keys) == 2
        assert min(ends) > 0
