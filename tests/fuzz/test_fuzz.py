"""A small run of `make fuzz`, the same each time; and ids of another tenant, at every operation."""

import re
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from fuzz.judge import case_of, fire, operations
from fuzz.run import Tally, fuzz
from fuzz.sockets import SOCKET
from fuzz.tenants import Stage, stage
from fuzz.valid_requests import NEVER_SERVED, Valid

SEED = 20261129
OPERATIONS = operations()
OF_AN_ID = [name for name in OPERATIONS if "id}" in name and "/keys/" not in name]
BODIES = {"/replay": {"since": 0}, "/rotate": {"overlap_s": 60}}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


def ask(at: Stage, who: str, name: str, id: str) -> tuple[int, str]:
    """What a caller is told of an id, without what differs between any two requests."""
    method, path = name.split(" ")
    body = next((it for end, it in BODIES.items() if path.endswith(end)), {})
    answer = httpx.request(
        method,
        at.url + re.sub(r"\{\w+\}", id, path),
        headers=at.callers[who].headers,
        json=body if method in {"POST", "PATCH", "PUT"} else None,
        timeout=30,
    )
    text = re.sub(r'"(request_id|instance)": ?"[^"]*"', "", answer.text)
    return answer.status_code, text.replace(id, "<id>")


@pytest.mark.parametrize("name", OF_AN_ID)
def test_what_is_anothers_is_like_what_nobody_has(at: Stage, name: str) -> None:
    things = at.callers["ann"].things
    id = things[max((path for path in things if path in name), key=len)]
    nobodys = f"{id.rpartition('_')[0]}{'_' if '_' in id else ''}{uuid4().hex}"
    told = ask(at, "bob", name, id)

    assert told[0] == 404
    assert told == ask(at, "bob", name, nobodys)
    if name.startswith("GET"):
        assert ask(at, "ann", name, id)[0] in {200, 400}


def test_a_head_that_is_no_http_is_no_fault_of_an_operation(at: Stage) -> None:
    case = case_of(OPERATIONS["GET /api/v1/dead/{id}"], Valid(path={"id": "0" * 32}))
    case.headers["Content-Length"] = "%QvJ$"

    assert fire(at, case, at.callers["ann"], None) == (400, "")


@pytest.mark.slow
def test_made_up_requests_with_keys_of_two_tenants_break_nothing(at: Stage) -> None:
    tally = Tally()
    rounds = iter([0])
    fuzz(at, OPERATIONS, of=SEED, rounds=rounds, tally=tally, watch=lambda *_: True, cases=1)

    assert list(tally.faults.values()) == []
    assert {each // 100 for each in tally.statuses} >= {2, 4}
    assert {*OPERATIONS, SOCKET} - tally.served == NEVER_SERVED.keys()
