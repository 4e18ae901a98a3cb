"""Asks /healthz again and again in a process of its own, and prints the worst answer in ms.

`python -S health_probe.py HOST PORT`: ends when its standard input does. It imports little and
shares no interpreter with whoever floods, so that what it measures is the shim.
"""

import select
import socket
import sys
import time

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
EVERY_S = 0.01


def asked(line: socket.socket) -> bytes:
    """One answer on a connection."""
    line.sendall(REQUEST)
    received = b""
    while b"\r\n\r\n" not in received:
        data = line.recv(65536)
        if not data:
            raise ConnectionError
        received += data
    return received


def main(host: str, port: int) -> None:
    """Print the worst of all answers, the number of answers, and of those that failed."""
    worst_s, count, failed = 0.0, 0, 0
    line = socket.create_connection((host, port), timeout=120)
    asked(line)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        began = time.perf_counter()
        try:
            is_well = asked(line).startswith(b"HTTP/1.1 200 ")
        except OSError:
            is_well = False
            line = socket.create_connection((host, port), timeout=120)
        worst_s = max(worst_s, time.perf_counter() - began)
        count += 1
        failed += not is_well
    sys.stdout.write(f"{worst_s * 1000:.1f} {count} {failed}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
