"""The number that an autoscaler reads: what the jobs fill, at least what is busy, never null.

Subjects: api_shim/native/scale.py, relay/scaling/demand.py, contract/roster.py.
"""

from hypothesis import given
from hypothesis import strategies as st
from support.relay import QUEUE, chat
from support.shim import Stage, problem, serving, stage

from contract.roster import workers_wanted
from relay.tickets import message, ticket

COUNTS = st.integers(0, 10**6)


@given(waiting=COUNTS, running=COUNTS, slots=st.integers(0, 1000), busy=st.integers(0, 1000))
def test_it_is_the_least_number_whose_slots_hold_all_jobs_and_no_less_than_busy(
    waiting: int, running: int, slots: int, busy: int
) -> None:
    wanted = workers_wanted(waiting, running, slots, busy)

    assert wanted >= busy
    assert wanted * max(slots, 1) >= waiting + running
    assert wanted == busy or (wanted - 1) * max(slots, 1) < waiting + running


async def ask(at: Stage, **query: str) -> dict[str, int]:
    answer = await at.http.get("/api/v1/scale", params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, int] = answer.json()
    assert None not in told.values()
    return told


async def serve(at: Stage, *names: str, slots: int = 2) -> None:
    for name in names:
        report = await at.announce(name=name)
        queues = tuple(q.model_copy(update={"slots": slots}) for q in report.queues)
        await at.relay.roster.report(report.model_copy(update={"queues": queues}))


async def test_waiting_and_running_jobs_fill_workers(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await serve(at, "w1")
        idle = await ask(at, queue=QUEUE)
        for _ in range(5):
            await at.relay.enqueue()
        await at.relay.claim("w1")
        asked = await ask(at, queue=QUEUE)

    assert (idle["workers"], idle["waiting"], idle["running"]) == (0, 0, 0)
    assert (asked["workers"], asked["waiting"], asked["running"]) == (3, 4, 1)


async def test_a_worker_with_a_job_is_never_scaled_away(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await serve(at, "w1", "w2", "w3", slots=8)
        for worker in ("w1", "w2", "w3"):
            await at.relay.enqueue()
            await at.relay.claim(worker)
        asked = await ask(at, queue=QUEUE)

    assert (asked["workers"], asked["busy"]) == (3, 3)


async def test_a_backend_wants_what_its_largest_queue_wants_and_backends_are_added_up(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        for backend, kind, count in (("a", "chat", 3), ("a", "image", 2), ("b", "chat", 1)):
            for _ in range(count):
                await at.relay.queue.enqueue(chat(), queue=f"{backend}.{kind}")
        one = await ask(at, backend="a")
        fleet = await ask(at)

    assert one["workers"] == 3
    assert fleet["workers"] == 4


async def test_the_slots_of_a_backend_without_workers_are_remembered(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await serve(at, "w1", slots=4)
        await at.relay.roster.leave("w1")
        for _ in range(5):
            await at.relay.enqueue()
        asked = await ask(at, queue=QUEUE)

    assert asked["workers"] == 2


async def test_a_job_between_two_attempts_still_wants_its_worker(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        claimed = await at.relay.claim()
        await at.relay.leases.hand_over(
            QUEUE, job, claimed.attempt, reason="busy", counts=False, delay_s=60
        )
        asked = await ask(at, queue=QUEUE)

    assert (asked["workers"], asked["waiting"], asked["running"]) == (1, 1, 0)


async def test_messages_of_other_applications_count_and_left_over_tickets_do_not(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        for _ in range(3):
            await at.relay.connection.command("LPUSH", QUEUE, ticket(QUEUE))
        tickets = await ask(at, queue=QUEUE)
        await at.relay.connection.command("LPUSH", QUEUE, message("fleet.chat", {}, QUEUE))
        with_foreign = await ask(at, queue=QUEUE)

    assert (tickets["workers"], with_foreign["workers"]) == (0, 1)


async def test_a_list_that_is_none_stops_no_other_queue(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.relay.enqueue()
        await at.relay.connection.command("SET", "broken.chat", "x")
        await at.relay.connection.command("ZADD", "fleet:queues", 1e12, "broken.chat")

        assert (await ask(at))["workers"] == 1


async def test_an_unknown_queue_wants_nothing_and_nonsense_is_refused(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        asked = await ask(at, queue="nobody.chat")
        refused = await at.http.get("/api/v1/scale", params={"queue": "no queue"})
        of_another = {"queue": "fix.chat", "backend": "box"}
        contradicts = await at.http.get("/api/v1/scale", params=of_another)
        agrees = await ask(at, queue="box.chat", backend="box")

    assert asked["workers"] == agrees["workers"] == 0
    problem(refused, 422, "invalid_request")
    assert "queue=fix.chat" in problem(contradicts, 422, "invalid_request")["detail"]


async def test_without_redis_there_is_an_error_and_no_number(redis_url: str) -> None:
    with serving("redis://127.0.0.1:9/0") as shim:
        async with stage(shim, redis_url) as at:
            answer = await at.http.get("/api/v1/scale")

    problem(answer, 503, "relay_unavailable")
