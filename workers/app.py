"""The composition root of a worker process: settings are read here, objects are built here.

python -m workers                          (as in the Procfile)
celery -A workers.app worker -c 64 -Q ...  (the same app, started by Celery's own command)
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from logging.handlers import WatchedFileHandler
from time import monotonic
from types import FrameType
from typing import Any, Final
from urllib.parse import urlsplit

from celery import Celery, bootsteps, signals
from celery.bin.base import CLIContext
from celery.bin.worker import worker as worker_command
from celery.utils.log import mlevel
from kombu.entity import Exchange
from kombu.entity import Queue as CeleryQueue
from pydantic import SecretStr

from contract.errors import FleetError
from contract.redis_keys import queue_name
from contract.roster import Capability
from relay.connection import until_redis_answers
from relay.multiplexer import tls_options
from relay.settings import RelaySettings
from telemetry.logs import set_up_logs
from telemetry.settings import LogSettings
from workers.backend_registry import build
from workers.backends.dsn import BackendConfig, DsnError
from workers.backends.protocols import capabilities
from workers.celery_pool.consumer import ConsumerControl
from workers.celery_pool.redis_transport import EventsSentOnce, SteadyAmqp, use_for_redis
from workers.config import configured, over_all, slots_of
from workers.lifetime import WorkerLifetime
from workers.settings import WorkerSettings, demand_agreement, wanted_kinds
from workers.tasks import register_jobs, register_ticket, register_unreadable

_ONE_SIGNAL_S: Final = 1.0
"""Seconds within which two signals to stop count as one."""
_SPARE_S: Final = 15.0
"""Seconds beyond `drain_s` for which the pool waits for the tasks of jobs that are handed over."""
_LEAST_CONCURRENCY: Final = 256
"""Celery's own bound. The slots of the backend are the real one; a probe may raise their number."""
CELERY_SETTINGS: Final[dict[str, Any]] = {
    "worker_pool": "workers.celery_pool.pool:AsyncioPool",
    "worker_consumer": "workers.celery_pool.consumer:PausingConsumer",
    "task_acks_late": False,
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "worker_enable_remote_control": True,
    "worker_hijack_root_logger": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # A Redis that is full or a replica for a while refuses kombu's own keys: try again.
    "broker_channel_error_retry": True,
    "broker_transport_options": {
        # A ticket is a hint: kombu need not record the unacknowledged ones, which a full Redis
        # would refuse, nor deliver them again an hour later (celery #5935).
        "ack_emulation": False,
        # Seconds of one BRPOP. A queue that is consumed again, because a slot became free, is in
        # the next one; the default would delay it by a second.
        "polling_interval": 0.2,
        # Without a timeout, a connection whose peer vanished would block forever.
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        # Seconds without a reply to BRPOP after which the connection is replaced.
        "health_check_interval": 5,
        # No retries inside of redis-py: its listener would reconnect and then read without a
        # timeout, on the thread of Celery's hub.
        "retry_on_timeout": False,
    },
}
"""The configuration of Celery; the reasons are in docs/adr/0001 and 0002."""


def create_app() -> Celery:
    """Return the Celery app of this process: one backend, its queues, its pool; does not connect.

    Raises DsnError if the backend is not configured, InvalidSetting, or a BackendError if its
    adapter cannot be made here: a missing library, a folder without a model.
    """
    settings, relay_settings, logs = WorkerSettings(), RelaySettings(), LogSettings()
    demand_agreement(settings, relay_settings)
    config = chosen(settings, configured(os.environ))
    slots_each = capacity(config, settings)
    queues = over_all(slots_each, len(config.each))
    lifetime = WorkerLifetime(settings, relay_settings, config, slots_each)
    use_for_redis()
    app = Celery("fleet", broker=broker_url(relay_settings), events=EventsSentOnce, amqp=SteadyAmqp)
    app.conf.update(
        CELERY_SETTINGS,
        broker_transport_options={
            **CELERY_SETTINGS["broker_transport_options"],
            "task_queues": tuple(queues),
        },
        task_queues=[
            # Tickets are pushed straight into the list: a binding would be one more key to write.
            CeleryQueue(queue, Exchange(queue), routing_key=queue, no_declare=True)  # type: ignore[no-untyped-call]
            for queue in queues
        ],
        worker_concurrency=max(_LEAST_CONCURRENCY, sum(queues.values())) + len(queues),
        fleet_drain_timeout_s=settings.drain_s + _SPARE_S,
        fleet_lifespan=lifetime.of,
        broker_use_ssl=tls_options(relay_settings.redis_url.get_secret_value()) or None,
    )
    register_ticket(app, lifetime)
    register_jobs(app, lifetime)
    register_unreadable(app, lifetime)
    keys = (config.key, *(each.key for each in config.endpoints), settings.metrics_key)
    secrets = (*keys, relay_settings.redis_url)
    _connect_signals(lifetime, relay_settings, partial(set_up_worker_logs, logs, secrets))
    app.steps["worker"].add(StopSignals)
    return app


class StopSignals(bootsteps.StartStopStep):  # type: ignore[misc]
    """SIGINT stops a worker as SIGTERM does; Celery's second SIGINT would cancel running tasks.

    `timeout` signals a process and its group, so two signals within a second count as one. SIGUSR2
    retires the worker: it takes no more jobs, finishes those that it has, and ends. A SIGTERM after
    that bounds the wait by `drain_s`.
    """

    def start(self, parent: Any) -> None:
        """Replace Celery's handlers, which it has installed before."""
        stop = signal.getsignal(signal.SIGTERM)
        stopped_at: float | None = None

        def once(number: int, frame: FrameType | None) -> None:
            nonlocal stopped_at
            is_same = stopped_at is not None and monotonic() - stopped_at < _ONE_SIGNAL_S
            if not is_same and callable(stop):
                stopped_at = monotonic()
                stop(number, frame)

        def retire(number: int, frame: FrameType | None) -> None:
            # `fleet worker retire` sends it until the process has ended, and an interpreter that
            # ends restores the default action, which is to die.
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            if not parent.pool.is_retiring and callable(stop):
                parent.pool.retire()
                stop(number, frame)

        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, once)
        signal.signal(signal.SIGUSR2, retire)


def _connect_signals(
    lifetime: WorkerLifetime, relay_settings: RelaySettings, set_up: Callable[..., None]
) -> None:
    """Hook into Celery's start: wait for Redis before it, let slots pause the consumer after it.

    `set_up` replaces Celery's own set-up of logs.
    """

    def let_slots_control_the_consumer(sender: Any, **_: object) -> None:
        lifetime.slots.control(ConsumerControl(sender))

    def wait_for_redis(**_: object) -> None:
        wait_at_start(relay_settings)

    signals.celeryd_init.connect(wait_for_redis, weak=False)
    signals.worker_ready.connect(let_slots_control_the_consumer, weak=False)
    signals.setup_logging.connect(set_up, weak=False)


def wait_at_start(settings: RelaySettings) -> None:
    """Wait until Redis answers, before Celery connects to it; SIGTERM or SIGINT ends it with 0.

    Celery itself would print a traceback, and the lifespan of the pool would fail.
    """

    def leave(*_: object) -> None:
        raise SystemExit(0)

    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(until_redis_answers(settings, lambda line: print_line(f"worker: {line}")))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def print_line(line: str) -> None:
    """Write a line to stderr: Celery has not set up logging yet."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def app_or_exit() -> Celery:
    """Return the app. A wrong configuration is one line on stderr and exit code 2."""
    try:
        return create_app()
    except (DsnError, FleetError) as error:
        sys.stderr.write(f"worker: {error}\n")
        sys.exit(2)


def run_worker(app: Celery, arguments: Sequence[str]) -> int:
    """Run Celery's worker command, with extra arguments, until it ends; returns its exit code."""
    name = WorkerSettings().worker_name
    # The relay connects workers, so they need not know of each other through Celery.
    quiet = ["--without-gossip", "--without-mingle", "--heartbeat-interval", "60"]
    command = ["--loglevel", "INFO", "--hostname", f"{name}@%h", *quiet, *arguments]
    # Not `worker_main`: it drops the exit code (0 for a worker that crashed), and loads every other
    # command with its plugins, which is a quarter of the time of a start.
    context = CLIContext(app=app, no_color=False, workdir=None)
    code: int = worker_command.main(
        args=command, prog_name="worker", obj=context, standalone_mode=False
    )
    return code


def chosen(settings: WorkerSettings, configs: list[BackendConfig]) -> BackendConfig:
    """Return the backend of this worker; the scripted one needs no configuration.

    Raises DsnError if no backend has the name in FLEET_WORKER_BACKEND.
    """
    by_name = {config.name: config for config in configs}
    if settings.worker_backend in by_name:
        return by_name[settings.worker_backend]
    if settings.worker_backend == "scripted":
        return BackendConfig(name="scripted", type="scripted")
    raise DsnError(
        f"FLEET_WORKER_BACKEND={settings.worker_backend}: no backend has that name; there are "
        f"{', '.join(by_name) or 'none'}. Set LLM_{settings.worker_backend.upper()}=<type>://..."
    )


def capacity(config: BackendConfig, settings: WorkerSettings) -> dict[str, int]:
    """Slots of one endpoint by queue, for each kind that it can do and the settings want."""
    wanted = wanted_kinds(settings.worker_kinds)
    can = _kinds_of(config)
    if unknown := wanted - set(can):
        raise DsnError(
            f"FLEET_WORKER_KINDS={settings.worker_kinds}: backend {config.name} cannot do "
            f"{', '.join(sorted(unknown))}; it can do {', '.join(can)}"
        )
    kinds = [kind for kind in can if not wanted or kind in wanted]
    packs = settings.embed_pack
    return {queue_name(config.name, kind): slots_of(config, kind, packs=packs) for kind in kinds}


def _kinds_of(config: BackendConfig) -> tuple[Capability, ...]:
    """Return what the backend's adapter can do; jobs use another one, made on the worker's loop."""
    adapter = build(config)
    try:
        return capabilities(adapter)
    finally:
        asyncio.run(adapter.aclose())


def broker_url(settings: RelaySettings) -> str:
    """Return the URL of the relay's Redis for Celery, in its form and without options of TLS."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    if parts.scheme != "unix":
        kept = (each for each in parts.query.split("&") if not each.startswith("ssl_"))
        return parts._replace(query="&".join(kept)).geturl()
    query = parts.query.replace("db=", "virtual_host=")
    return f"redis+socket://{parts.path}" + (f"?{query}" if query else "")


def set_up_worker_logs(
    settings: LogSettings,
    secrets: Iterable[SecretStr | None],
    *,
    loglevel: int | str = logging.INFO,
    logfile: str | None = None,
    **_: object,
) -> None:
    """Receive Celery's `setup_logging`: `--loglevel`, `--logfile`; tickets have no lines."""
    set_up_logs(
        settings,
        level=mlevel(loglevel),
        target=WatchedFileHandler(logfile, encoding="utf-8") if logfile else None,
        secrets=secrets,
    )
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


def __getattr__(name: str) -> Celery:
    """Build the app when `celery -A workers.app` reads it, and not on import."""
    if name in {"app", "celery"}:
        globals()["app"] = globals()["celery"] = made = app_or_exit()
        return made
    raise AttributeError(name)
