"""What tenants used, over HTTP: own or all, grouped, in pages, as CSV and as Parquet.

Subjects: api_shim/native/usage.py, api_shim/native/usage_file.py, contract/usage.py.
"""

import csv
import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on
from support.shim import problem, stage

from contract.events import Done, Usage
from contract.tenants import Tenant

DONE = Done(usage=Usage(prompt_tokens=7, completion_tokens=4))


async def use(relay: Relay, *models: str, tenant: str = "default") -> None:
    for model in models:
        request = chat().model_copy(update={"model": model})
        await relay.queue.enqueue(request, queue=QUEUE, tenant=Tenant(name=tenant))
        log = relay.attempt_log(await relay.claim())
        log.append(DONE)
        await log.flush()


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    with keyed(own_redis.url) as shim:
        yield shim


async def test_what_has_just_ended_is_told_by_group_in_pages(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await use(at.relay, "a", "b", "b", "c")
        query: dict[str, Any] = {"group_by": "model", "limit": 2}
        first = (await at.http.get("/api/v1/usage", params=query)).json()
        second = (
            await at.http.get("/api/v1/usage", params={**query, "after": first["next"]})
        ).json()
        whole = (await at.http.get("/api/v1/usage", params={"group_by": ""})).json()

    rows = [(each["model"], each["requests"]) for each in first["rows"] + second["rows"]]
    assert rows == [("a", 1), ("b", 2), ("c", 1)]
    assert second["next"] is None
    assert first["total"] == second["total"]
    assert (whole["rows"][0]["prompt_tokens"], whole["total"]["completion_tokens"]) == (28, 16)
    assert (first["rows"][0]["day"], first["currency"]) == (None, "USD")


async def test_a_tenant_sees_its_own_usage_and_an_admin_all(fleet: Keyed, own_redis: Any) -> None:
    async with (
        relay_on(own_redis.url) as relay, fleet.caller("a") as a, fleet.admin as admin
    ):  # fmt: skip
        await use(relay, "m", tenant="a")
        await use(relay, "m", "n", tenant="b")
        own = (await a.get("/api/v1/usage?group_by=tenant,model")).json()
        every = (await admin.get("/api/v1/usage?group_by=tenant")).json()
        one = (await admin.get("/api/v1/usage?group_by=tenant&tenant=b&model=n")).json()
        other = await a.get("/api/v1/usage?tenant=b")

    assert [(row["tenant"], row["model"]) for row in own["rows"]] == [("a", "m")]
    assert [(row["tenant"], row["requests"]) for row in every["rows"]] == [("a", 1), ("b", 2)]
    assert one["total"]["requests"] == 1
    assert problem(other, 403, "not_allowed")


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("group_by=colour", 422, "choose from day, tenant"),
        ("from=yesterday", 422, "from"),
        ("from=2026-02-01&to=2026-01-01", 422, "earlier day"),
        ("from=0001-01-01&to=9999-12-31", 422, "3660"),
        ("to=0001-01-01", 200, ""),
        ("after=nonsense", 400, "next"),
        ("after=WyJhIl0=", 400, "next"),
        ("limit=0", 422, "limit"),
        ("format=xml", 422, "format"),
        ("fromm=2026-01-01", 422, "from"),
    ],
)
async def test_a_wrong_question_is_told_what_is_wrong(
    shim: str, redis_url: str, query: str, status: int, words: str
) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.get(f"/api/v1/usage?{query}")

    assert answer.status_code == status
    assert words in answer.text


async def test_a_csv_file_has_a_column_for_each_group_and_runs_no_formula(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await use(at.relay, '=cmd|" /C calc"!A0', "b,\nc")
        answer = await at.http.get("/api/v1/usage?format=csv")

    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert [row["model"] for row in rows] == ['\'=cmd|" /C calc"!A0', "b,\nc"]
    assert (rows[0]["kind"], rows[0]["prompt_tokens"], rows[0]["tenant"]) == ("", "7", "default")


async def test_a_parquet_file_has_the_same_columns(shim: str, redis_url: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    async with stage(shim, redis_url) as at:
        await use(at.relay, "a", "b")
        answer = await at.http.get("/api/v1/usage?format=parquet&group_by=model")

    table = parquet.read_table(io.BytesIO(answer.content)).to_pydict()
    assert (table["model"], table["completion_tokens"]) == (["a", "b"], [4, 4])
    assert table["day"] == [None, None]


async def test_without_pyarrow_parquet_is_refused_with_what_to_install(
    shim: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    async with stage(shim, redis_url) as at:
        answer = await at.http.get("/api/v1/usage?format=parquet")

    assert problem(answer, 400, "not_supported")
    assert "llm-fleet[parquet]" in answer.text


async def test_limits_are_told_with_how_full_they_are(fleet: Keyed, own_redis: Any) -> None:
    """An admin gets the smallest of each tenant's keys; a tenant those of its key."""
    async with (
        relay_on(own_redis.url) as relay,
        fleet.caller("a", limit_tokens_day=100, limit_spend_month=2.5) as a,
        fleet.caller("a", limit_tokens_day=50),
        fleet.admin as admin,
    ):
        await use(relay, "m", tenant="a")
        own = (await a.get("/api/v1/usage/limits")).json()
        every = (await admin.get("/api/v1/usage/limits")).json()
        other = await a.get("/api/v1/usage/limits?tenant=b")

    ((tenant, day, month),) = [(each["tenant"], *each["limits"]) for each in own["tenants"]]
    assert (tenant, day["name"], day["limit"], day["used"]) == ("a", "limit_tokens_day", 100, 11)
    assert (month["name"], month["limit"], month["used"]) == ("limit_spend_month", 2.5, 0)
    assert 0 < day["free_in_s"] <= 86400
    shown = {each["tenant"]: each["limits"] for each in every["tenants"]}
    assert sorted(shown) == ["a", "boss"]
    assert [limit["limit"] for limit in shown["a"]] == [50, 2.5]
    assert problem(other, 403, "not_allowed")
