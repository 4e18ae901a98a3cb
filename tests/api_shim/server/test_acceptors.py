"""How a new connection fares behind very many others."""

import select
import signal
import socket
from pathlib import Path

from support.shims import shim

REQUEST = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
MANY = 600


def test_a_probe_on_a_new_connection_is_not_the_last_of_all_that_came_at_once(
    redis_url: str, tmp_path: Path
) -> None:
    with shim(redis_url, tmp_path) as process:
        address = ("127.0.0.1", int(process.url.rpartition(":")[2]))
        process.popen.send_signal(signal.SIGSTOP)
        try:
            lines = [socket.create_connection(address, timeout=10) for _ in range(MANY)]
            for line in lines:
                line.sendall(REQUEST)
            probe = socket.create_connection(address, timeout=10)
            probe.sendall(PROBE)
        finally:
            process.popen.send_signal(signal.SIGCONT)
        answer = probe.recv(4096)
        readable = select.poll()
        for line in lines:
            readable.register(line, select.POLLIN)
        served = len(readable.poll(0))
        whole = [line.recv(4096).startswith(b"HTTP/1.1 200") for line in lines]
        for line in (*lines, probe):
            line.close()

    assert b" 200 " in answer.partition(b"\r\n")[0]
    assert served < MANY / 2
    assert all(whole)
