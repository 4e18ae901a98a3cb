"""How fast the fleet answers, from what its totals grow by."""

import pytest
from support.relay import relay_on

from api_shim.overview.pace import Pace
from relay.metrics.totals import FleetTotals, Increase


async def test_a_median_and_a_rate_are_of_the_last_minute(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        totals = FleetTotals(relay.connection)
        await totals.add([Increase(("tokens_total", "", "q", "m", "out"), 5000)])
        pace = Pace(totals)
        await pace.follow(100.0)
        alone = (pace.tokens_per_s, pace.first_token_ms)
        await totals.add(
            [
                Increase(("tokens_total", "", "q", "m", "out"), 300),
                Increase(("tokens_total", "", "q", "m", "in"), 900),
                Increase(("time_to_first_token_seconds", "0.1", "q", "m"), 1),
                Increase(("time_to_first_token_seconds", "0.25", "q", "m"), 2),
                Increase(("time_to_first_token_seconds", "sum", "q", "m"), 99),
            ]
        )
        await pace.follow(102.0)
        early = pace.tokens_per_s
        await pace.follow(110.0)

        assert alone == (None, None)
        assert early is None
        assert pace.tokens_per_s == 30.0
        assert pace.first_token_ms == pytest.approx(137.5)
        for later in range(120, 200, 10):
            await pace.follow(float(later))
        assert (pace.tokens_per_s, pace.first_token_ms) == (0.0, None)
