"""What the pool relies on in Celery and kombu beyond their documentation, and what it refuses."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals
from celery.app import defaults, trace
from celery.concurrency import prefork
from celery.concurrency.base import BasePool
from celery.exceptions import ImproperlyConfigured
from celery.utils.threads import LocalStack
from celery.worker import state
from celery.worker.consumer.consumer import Consumer
from celery.worker.consumer.tasks import Tasks
from celery.worker.request import Request
from greenlet import getcurrent
from kombu.asynchronous import Hub, set_event_loop
from kombu.transport.virtual.base import Transport

from workers.celery_pool.pool import AsyncioPool


@pytest.mark.parametrize(
    ("owner", "attribute"),
    [
        (BasePool, "RUN"),
        (BasePool, "_get_info"),
        (Consumer, "add_task_queue"),
        (Consumer, "call_soon"),
        (Consumer, "cancel_task_queue"),
        (Hub, "_pop_ready"),
        (Hub, "call_repeatedly"),
        (Hub, "call_soon"),
        (Hub, "run_once"),
        (Request, "on_accepted"),
        (Request, "on_failure"),
        (Request, "on_success"),
        (Request, "on_timeout"),
        (Transport, "_reject_inbound_message"),
        (prefork, "_run_ready_callbacks"),
        (signals, "worker_shutting_down"),
        (state, "reserved_requests"),
        (state, "should_stop"),
        (state, "should_terminate"),
        (trace, "fast_trace_task"),
    ],
)
def test_a_part_that_the_pool_relies_on_is_there(owner: Any, attribute: str) -> None:
    assert hasattr(owner, attribute), (
        f"{owner.__name__}.{attribute} is gone from this Celery or kombu: "
        "the asyncio pool (workers/celery_pool/pool.py) uses it"
    )


@pytest.mark.parametrize(
    "keyword",
    [
        "accept_callback",
        "callback",
        "error_callback",
        "soft_timeout",
        "timeout",
        "timeout_callback",
    ],
)
def test_celery_calls_the_pool_with_the_keywords_it_knows(keyword: str) -> None:
    assert f"{keyword}=" in inspect.getsource(Request.execute_using_pool)
    assert keyword in inspect.signature(AsyncioPool.on_apply).parameters


def test_celerys_request_stack_belongs_to_the_greenlet() -> None:
    assert LocalStack().__ident_func__ is getcurrent


def test_celery_bounds_what_a_worker_takes_by_the_size_of_the_pool() -> None:
    assert "disable_prefetch" in defaults.NAMESPACES["worker"]
    assert "pool.num_processes" in inspect.getsource(Tasks.start)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    set_event_loop(hub)
    yield hub
    hub.close()
    set_event_loop(None)


def test_a_broker_without_an_event_loop_is_refused() -> None:
    pool = AsyncioPool(limit=1, app=Celery(set_as_current=False))

    with pytest.raises(ImproperlyConfigured, match="redis"):
        pool.start()


@pytest.mark.usefixtures("hub")
def test_a_worker_that_prefetches_is_refused() -> None:
    # mitodl/ol-infrastructure #5598: the prefetch count drifts to 600, one worker hoards.
    pool = AsyncioPool(limit=1, app=Celery(set_as_current=False))

    with pytest.raises(ImproperlyConfigured, match="worker_disable_prefetch"):
        pool.start()
