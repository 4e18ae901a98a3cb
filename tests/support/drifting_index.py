"""A package index on loopback where every package has a newer release than the lock names.

Its wheels are empty but for their metadata, which is that of the packages installed here: so a
resolver asks for the same things as with the real ones. What must work (uv, the build tools) is
packed again from where it is installed.
"""

import base64
import hashlib
import re
import stat
import threading
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NEWER = "9999.0"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and remembers what it was asked for."""

    asked: list[str]

    def __init__(self, *words: Any, asked: list[str], **more: Any) -> None:
        self.asked = asked
        super().__init__(*words, **more)

    def log_message(self, format: str, *words: Any) -> None:
        self.asked.append(self.path)


class DriftingIndex:
    """The index in a folder: `simple/<name>/index.html` and the files beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[None]:
        handler = partial(Quiet, directory=str(self.folder), asked=self.asked)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_port}/simple/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    def lock(self, lines: Iterable[str], real: Iterable[str] = ()) -> str:
        """The same lock with the hashes of this index's files, which are made here."""
        return "".join(self._locked(Requirement(line), set(real)) for line in lines)

    def _locked(self, wanted: Requirement, real: set[str]) -> str:
        name, version = canonicalize_name(wanted.name), str(wanted.specifier).removeprefix("==")
        folder = self.folder / "simple" / name
        folder.mkdir(parents=True, exist_ok=True)
        installed = _installed(name)
        wheel = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        if not wheel.exists():
            _pack(wheel, name, version, installed, is_whole=name in real)
            newer = folder / f"{name.replace('-', '_')}-{NEWER}-py3-none-any.whl"
            _pack(newer, name, NEWER, installed, is_whole=False)
            _list(folder)
        return f"{wanted} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def entries(lock: Path) -> list[str]:
    """The requirements of a lock file, without their hashes."""
    joined = lock.read_text().replace("\\\n", " ").splitlines()
    return [line.partition(" --hash")[0].strip() for line in joined]


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        # Another platform's or another Python's.
        return None


def _list(folder: Path) -> None:
    links = (
        f'<a href="{escape(each.name)}#sha256={hashlib.sha256(each.read_bytes()).hexdigest()}">'
        f"{escape(each.name)}</a>"
        for each in sorted(folder.glob("*.whl"))
    )
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")


def _pack(
    target: Path, name: str, version: str, installed: Distribution | None, *, is_whole: bool
) -> None:
    """Write a wheel: all files of what is installed, or only what it asks for."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    asks = "".join(f"Requires-Dist: {each}\n" for each in (installed and installed.requires) or ())
    extras = (installed.metadata.get_all("Provides-Extra") if installed else None) or []
    offers = "".join(f"Provides-Extra: {each}\n" for each in extras)
    records: list[str] = []
    with zipfile.ZipFile(target, "w") as archive:

        def add(path: str, data: bytes, mode: int = 0o644) -> None:
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            records.append(f"{path},sha256={digest},{len(data)}\n")

        if is_whole and installed is not None:
            _add_files(installed, f"{info.removesuffix('.dist-info')}.data/scripts", add)
        add(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{offers}{asks}".encode(),
        )
        add(f"{info}/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "".join([*records, f"{info}/RECORD,,\n"]))


def _add_files(installed: Distribution, scripts: str, add: Any) -> None:
    for each in installed.files or ():
        path = Path(str(installed.locate_file(each)))
        if re.search(r"\.dist-info/|__pycache__/", str(each)) and "entry_points" not in path.name:
            continue
        if str(each).startswith(".."):
            add(f"{scripts}/{path.name}", path.read_bytes(), 0o755)
        elif "entry_points" not in path.name:
            add(str(each), path.read_bytes())
