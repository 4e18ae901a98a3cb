"""The HTTP endpoint at which a worker serves its metrics, on its own loop."""

import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from telemetry.process_metrics import CONTENT_TYPE, ProcessMetrics
from telemetry.settings import EndpointSettings

if TYPE_CHECKING:
    from aiohttp import web

_log = logging.getLogger(__name__)

_EVERY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


@asynccontextmanager
async def serving(
    metrics: ProcessMetrics, settings: EndpointSettings
) -> AsyncGenerator[str | None]:
    """Serve `/metrics` if a port is configured; yields its URL, None where nothing is served.

    A port that is in use is a line in the log: jobs do not depend on it.
    """
    if settings.metrics_port is None:
        yield None
        return
    from aiohttp import web  # noqa: PLC0415 - only where it is served: it takes 40 ms to import

    key = settings.metrics_key

    async def respond(request: "web.Request") -> "web.Response":
        sent = request.headers.get("Authorization", "")
        wanted = "" if key is None else f"Bearer {key.get_secret_value()}"
        if key is not None and not compare_digest(sent.encode(), wanted.encode()):
            return web.Response(status=401, text="send FLEET_METRICS_KEY as a bearer token\n")
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", respond)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        yield await _listening(runner, settings)
    finally:
        await runner.cleanup()


async def _listening(runner: "web.AppRunner", settings: EndpointSettings) -> str | None:
    from aiohttp import web  # noqa: PLC0415 - as above

    address = settings.metrics_address
    try:
        await web.TCPSite(runner, address, settings.metrics_port).start()
    except OSError as error:
        _log.error(
            "no metrics are served: FLEET_METRICS_PORT = %s on %s: %s; 0 takes a free port",
            settings.metrics_port, address, error.strerror or error,
        )  # fmt: skip
        return None
    port = runner.addresses[0][1]
    host = socket.gethostname() if address in _EVERY else address
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
