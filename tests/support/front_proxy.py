"""nginx and Caddy in front of a shim, with the configuration that docs/hardening.md shows.

Only what belongs to a place is replaced: addresses, certificates, and what an ordinary user may not
write. A replacement that finds nothing to replace is an error, so that the document cannot drift.
"""

import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from support.certificates import Authority
from support.debian_programs import Program, program
from support.redis_server import free_port
from support.shape import ROOT

DOCUMENT: Final = ROOT / "docs" / "hardening.md"
LANGUAGES: Final = {"nginx": "nginx", "caddy": "caddyfile"}
"""Of the block of code, by proxy."""
SHIM: Final = "127.0.0.1:8700"
HOST: Final = "fleet.example.org"
_START_S: Final = 30.0
_NGINX: Final = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{documented}
}}
"""


class Front(NamedTuple):
    """A proxy that serves."""

    name: str
    port: int
    tls: ssl.SSLContext
    """Of a client that trusts the proxy's certificate."""
    authority: Path
    """The certificate that it trusts."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"wss://127.0.0.1:{self.port}"


def documented(language: str) -> str:
    """The one block of code of this language in the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with each of these replaced; each must be in it."""
    for old, new in changes.items():
        assert old in text, f"{DOCUMENT} has no {old!r} any more"
        text = text.replace(old, new)
    return text


@contextmanager
def front(name: str, shim: str, changes: Mapping[str, str] | None = None) -> Iterator[Front]:
    """A proxy of this name before a shim (`host:port`), with more changes to what is documented.

    It runs as an ordinary user, also where the tests run as root.
    """
    found = program(name)
    with tempfile.TemporaryDirectory(prefix="front-") as place:
        folder, port = Path(place), free_port()
        authority = Authority(folder)
        authority.issue("proxy")
        text = replaced(documented(LANGUAGES[name]), {SHIM: shim, **(changes or {})})
        make = {"nginx": _nginx, "caddy": _caddy}[name]
        words = make(text, folder, port)
        with _running(found, words, folder) as process:
            _wait_for(port, process, folder)
            yield Front(name, port, _tls(authority.file), authority.file)


def _tls(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


def _nginx(text: str, folder: Path, port: int) -> list[str]:
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/fleet.pem": str(folder / "proxy.pem"),
        "/etc/ssl/fleet.key": str(folder / "proxy.key"),
    }
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder, documented=replaced(text, changes)))
    return ["-c", str(file), "-p", str(folder), "-e", "stderr"]


def _caddy(text: str, folder: Path, port: int) -> list[str]:
    site = f"{HOST} {{\n"
    changes = {
        site: f"https://127.0.0.1:{port}, https://{HOST}:{port} {{\n"
        f"bind 127.0.0.1\ntls {folder}/proxy.pem {folder}/proxy.key\n",
    }
    text = replaced(text, changes)
    assert text.startswith("{\n")
    file = folder / "Caddyfile"
    file.write_text("{\nadmin off\nauto_https disable_redirects\n" + text.removeprefix("{\n"))
    return ["run", "--adapter", "caddyfile", "--config", str(file)]


@contextmanager
def _running(found: Program, words: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    binary, user = found.path, None
    (folder / "home").mkdir()
    if os.geteuid() == 0:
        # Nobody but root may look into root's cache.
        binary, user = folder / found.path.name, "nobody"
        shutil.copy(found.path, binary)
        for each in (folder, *folder.iterdir()):
            shutil.chown(each, user)
    home = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder / "home"))
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [str(binary), *words], env={**found.environment, **home}, user=user, cwd=folder,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            told = (folder / "output").read_text(errors="replace")[-2000:]
            assert process.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.02)
        else:
            return
