"""`python -m api_shim`: serve HTTP until a signal.

On SIGTERM or SIGINT open streams end at once, because their clients reconnect to another process
with their cursor; other requests have `shutdown_s` seconds; then the exit code is 0.
"""

import signal

if __name__ == "__main__":
    # Until the server has its own handler: Ctrl-C while modules are imported is no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import ctypes
import gc
import logging
import socket
import sys
from contextlib import suppress
from time import monotonic
from types import FrameType
from typing import Any

import uvicorn
from typing_extensions import override

from api_shim.app import create_app, with_direct_routes
from api_shim.following.shutdown import OpenCalls
from api_shim.http.listening import first_key, reason_not_to_start
from api_shim.server.connection_guard import LOOK_EVERY_S, ConnectionGuard
from api_shim.server.http_protocol import http_protocol
from api_shim.server.socket_turns import accept_more
from api_shim.server.websocket_protocol import websocket_protocol
from api_shim.settings import ShimSettings
from contract.errors import InvalidSetting, RelayUnavailable
from telemetry.logs import set_up_logs
from telemetry.settings import LogSettings

_log = logging.getLogger(__name__)
_BACKLOG = 2048
_TICKS_S = 10
_M_MMAP_THRESHOLD = -3
_SWITCH_S = 0.0005
"""Of Python's interpreter, whose default is 5 ms. uvloop takes it anew for each socket that is
ready: beside a thread that parses a large body, forty sockets waited for it forty times."""
_LARGE_BLOCK_BYTES = 2**20
_ONE_SIGNAL_S = 1.0
_GC_THRESHOLDS = 20_000, 20, 20
"""As the worker's: with the interpreter's own, full collections take a third of a busy loop."""
_CLOSING_S = 1.0
"""For open calls to send their end before the server closes their connections."""


class ShimServer(uvicorn.Server):
    """A server that ends its streams before it waits for its requests."""

    def __init__(
        self, config: uvicorn.Config, open_calls: OpenCalls, guard: ConnectionGuard
    ) -> None:
        """Serve as configured; `guard` is that of the protocols in `config`."""
        super().__init__(config)
        self._open_calls = open_calls
        self._guard = guard
        self._stopped_at = 0.0

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down; a second Ctrl-C exits at once.

        The signal is not recorded, so uvicorn does not raise it again after the shutdown. `timeout`
        signals a process and its group: signals within a second count as one.
        """
        if self.should_exit and monotonic() - self._stopped_at < _ONE_SIGNAL_S:
            return
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit, self._stopped_at = True, monotonic()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and let the garbage collector pass over what stays for good.

        It would look at all modules, schemas and routes with every full collection.
        """
        await super().startup(sockets)
        self.servers += await accept_more(self.servers, self._protocol, self.config.backlog)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)

    def _protocol(self) -> asyncio.Protocol:
        """The protocol of a connection, made as uvicorn's `startup` makes it."""
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    @override
    async def on_tick(self, counter: int) -> bool:
        """Look at the connections; uvicorn calls this ten times a second."""
        if counter % round(LOOK_EVERY_S * _TICKS_S) == 0:
            now = asyncio.get_running_loop().time()
            self._guard.look(self.server_state.connections, now)
        return await super().on_tick(counter)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End open calls, then shut down as uvicorn does."""
        self._open_calls.close()
        await self._open_calls.wait_closed(_CLOSING_S)
        await super().shutdown(sockets)


def _return_large_blocks() -> None:
    """Have the C library return blocks of large bodies to the system at once.

    By default glibc keeps blocks of up to 32 MiB after the first of such a size was freed, which
    doubles what a large request costs, for as long as the process lives.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def server_of(settings: ShimSettings) -> ShimServer:
    """Build the server."""
    open_calls = OpenCalls()
    app = create_app(settings, open_calls)
    guard = ConnectionGuard(settings, app)
    config = uvicorn.Config(
        with_direct_routes(app, settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=http_protocol(guard),  # httptools
        ws=websocket_protocol(guard),  # websockets-sansio
        ws_max_size=64 * 1024,  # clients send nothing
        ws_per_message_deflate=False,  # many small messages: compression costs more than it saves
        access_log=False,  # api_shim/http/access_log.py
        log_config=None,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.connection_idle_s,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    return ShimServer(config, open_calls, guard)


def _arguments(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m api_shim", description="Serve HTTP.")
    parser.add_argument("--host", help="address to listen on (FLEET_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (FLEET_PORT)")
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="while no API key is configured, serve clients on other machines too (FLEET_INSECURE)",
    )
    return {
        name: given for name, given in vars(parser.parse_args(argv)).items() if given is not None
    }


def _print_first_key(settings: ShimSettings) -> None:
    """Make the first key and print it, not as a line of the log; raises SystemExit."""
    try:
        key = asyncio.run(first_key(settings))
    except RelayUnavailable as error:
        sys.exit(f"not started: the first API key (FLEET_FIRST_KEY) cannot be made: {error}")
    if key is not None:
        sys.stdout.write(
            "The first API key of this fleet, an admin's, printed only this once: keep it, and set "
            f"it as FLEET_API_KEY.\n\n    {key.get_secret_value()}\n\n"
        )
        sys.stdout.flush()


def main(argv: list[str]) -> None:
    """Read the settings and serve; returns after an orderly shutdown.

    Raises SystemExit: with code 2 for invalid settings, with a reason if it must not listen on the
    configured address or cannot make its first key.
    """
    try:
        settings, logs = ShimSettings(**_arguments(argv)), LogSettings()
    except InvalidSetting as error:
        sys.stderr.write(f"shim: {error}\n")
        sys.exit(2)
    set_up_logs(logs, secrets=[settings.redis_url, settings.metrics_key])
    _print_first_key(settings)
    try:
        why_not = asyncio.run(reason_not_to_start(settings))
    except RelayUnavailable as error:
        _log.warning("every request is refused until the API keys can be read: %s", error)
        why_not = None
    if {"*", "null"}.intersection(settings.origins):
        _log.warning(
            "FLEET_ORIGINS has * or null: while there are no API keys, every web page that someone "
            "opens on a machine that reaches this shim may use the fleet"
        )
    if why_not is not None:
        sys.exit(f"not started: {why_not}")
    _return_large_blocks()
    sys.setswitchinterval(_SWITCH_S)
    server_of(settings).run()


if __name__ == "__main__":
    main(sys.argv[1:])
