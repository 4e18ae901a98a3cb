"""How many messages leave the queue: the pool's limit, and queues that are paused."""

from collections.abc import Callable
from functools import partial

from .conftest import Broker, Worker, eventually

Start = Callable[..., Worker]


def test_no_more_messages_leave_the_queue_than_tasks_run(server: Broker, start: Start) -> None:
    # mitodl/ol-infrastructure #5598: one worker hoards, and the queue seems empty.
    start("-c", "3")
    for _ in range(10):
        server.send("wait_for_word", "task")
    assert [server.pop("task") for _ in range(3)] == ["started"] * 3
    assert server.redis.llen("main") == 7

    server.redis.rpush("task:end", "now")

    assert [server.pop("task") for _ in range(2)] == ["finished", "started"]
    assert server.redis.llen("main") == 6


def test_the_pool_grows_and_shrinks_by_remote_control(server: Broker, start: Start) -> None:
    start("-c", "3")
    control = server.client.control
    for _ in range(10):
        server.send("wait_for_word", "task")
    eventually(lambda: server.redis.llen("main") == 7)

    control.pool_grow(2, reply=True, limit=1)
    eventually(lambda: server.redis.llen("main") == 5)
    control.pool_shrink(4, reply=True, limit=1)
    server.redis.rpush("task:end", *["now"] * 4)

    eventually(lambda: server.items("task").count("finished") == 4)
    assert server.redis.llen("main") == 5
    (refusal,) = control.pool_shrink(1, reply=True, limit=1)
    assert "cannot shrink a pool of 1 by 1" in str(refusal)


def test_a_paused_queue_keeps_its_messages(server: Broker, start: Start) -> None:
    worker = start("-c", "100", "-Q", "main,side")
    server.send("steer", "pause", "side").get(timeout=5)
    server.send("steer", "pause", "side").get(timeout=5)
    eventually(lambda: "Canceling queue side" in worker.log)

    for number in range(20):
        server.send("tally", "done", number, queue="side")
    assert server.send("echo", "meanwhile").get(timeout=5) == "meanwhile"
    eventually(lambda: server.redis.llen("side") == 20)
    assert server.items("done") == []

    server.send("steer", "resume", "side").get(timeout=5)
    assert sorted(server.pop("done") for _ in range(20)) == sorted(map(str, range(20)))


def test_no_message_is_lost_or_doubled_by_pausing(server: Broker, start: Start) -> None:
    worker = start("-c", "100", "-Q", "main,side")
    for number in range(300):
        server.send("tally", "done", number, queue="side")
        if number % 10 == 0:
            server.send("steer", "pause" if number % 20 else "resume", "side")
    server.send("steer", "resume", "side")

    eventually(lambda: server.redis.llen("done") == 300)
    assert len(set(server.items("done"))) == 300
    assert "Canceling queue side" in worker.log


def test_a_queue_that_an_operator_cancelled_stays_so_until_it_is_added(
    server: Broker, start: Start
) -> None:
    worker = start("-c", "100", "-Q", "main,side")
    control = server.client.control
    eventually(lambda: control.cancel_consumer("side", reply=True, limit=1))
    eventually(lambda: "Canceling queue side" in worker.log)
    for verb in ("pause", "resume"):
        server.send("steer", verb, "side").get(timeout=5)
    server.send("tally", "done", 1, queue="side")
    for _ in range(5):
        server.send("echo", "meanwhile").get(timeout=5)
    assert server.items("done") == []

    eventually(lambda: control.add_consumer("side", reply=True, limit=1))
    assert server.pop("done") == "1", worker.log


def test_adding_a_queue_without_a_free_slot_waits_for_one(server: Broker, start: Start) -> None:
    worker = start("-c", "100", "-Q", "main,side")
    server.send("steer", "pause", "side").get(timeout=5)
    for verb in (server.client.control.cancel_consumer, server.client.control.add_consumer):
        eventually(partial(verb, "side", reply=True, limit=1))
    server.send("tally", "done", 1, queue="side")
    for _ in range(5):
        server.send("echo", "meanwhile").get(timeout=5)
    assert server.items("done") == []

    server.send("steer", "resume", "side").get(timeout=5)
    assert server.pop("done") == "1", worker.log
