"""The files of the page, read once: compressed, with tags, below a path that changes with them.

All files are served below `/page/<digest>/`, where the digest is of all of them. Modules import
each other by relative paths, so a browser that loads one version never mixes it with another, and
may keep every file forever.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).with_name("static")
PREFIX: Final = "/page/"
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
"""By the suffix of a file; licences have none."""
_IMPORTS: Final[Mapping[str, str]] = {
    "preact": "vendor/preact/preact.js",
    "preact/hooks": "vendor/preact/hooks.js",
    "htm": "vendor/htm/htm.js",
    "@preact/signals": "vendor/signals/signals.js",
    "@preact/signals-core": "vendor/signals-core/signals-core.js",
    "uplot": "vendor/uplot/uPlot.js",
}
"""What the modules import by name: libraries import each other so."""
_FIRST: Final = (
    *(path for name, path in _IMPORTS.items() if name != "uplot"),
    "main.js", "api.js", "store.js", "format.js", "html.js",
    "parts/controls.js", "parts/shell.js", "parts/overlays.js", "parts/sparkline.js",
    "views/overview.js",
)  # fmt: skip
"""What the first view needs; a browser fetches these at once, instead of import by import."""


class PageFile(NamedTuple):
    """One file, as it is sent."""

    body: bytes
    zipped: bytes
    media_type: str
    tag: str
    """Its ETag, with quotes."""


class Page(NamedTuple):
    """The whole page."""

    document: PageFile
    """What `/` is for a browser."""
    files: Mapping[str, PageFile]
    """By path below the digest."""
    digest: str
    policy: str
    """The Content-Security-Policy."""


@cache
def page() -> Page:
    """The page, read from its folder at the first call."""
    texts = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.is_file()
    }
    template = texts.pop("index.html").decode()
    digest = _sha256(b"".join(f"{name}\0".encode() + body for name, body in texts.items()))[:16]
    base = f"{PREFIX}{digest}/"
    imports = json.dumps({"imports": {name: base + path for name, path in _IMPORTS.items()}})
    preloads = "\n".join(f'<link rel="modulepreload" href="{base}{path}">' for path in _FIRST)
    document = (
        template.replace("{base}", base).replace("{imports}", imports).replace("{pre}", preloads)
    )
    files = {name: _page_file(name, body) for name, body in texts.items()}
    whole = _page_file("index.html", document.encode())._replace(
        media_type="text/html; charset=utf-8"
    )
    return Page(whole, files, digest, _policy(imports))


def _policy(imports: str) -> str:
    """The page loads and calls its own origin; one inline script is allowed, by its hash.

    With `trusted-types 'none'` a browser refuses every attempt to turn text into HTML or script:
    the output of models can only ever be text.
    """
    inline = base64.b64encode(hashlib.sha256(imports.encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'sha256-{inline}'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _page_file(name: str, body: bytes) -> PageFile:
    zipped = gzip.compress(body, mtime=0)
    return PageFile(body, zipped, _TYPES.get(Path(name).suffix, ""), f'"{_sha256(body)[:24]}"')


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
