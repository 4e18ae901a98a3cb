"""GET /: a page for browsers, and the heartbeat of Ollama for its clients.

The page is static, needs no key and shows nothing of this fleet. It loads nothing, and its
Content-Security-Policy allows one style, by its hash, and no script.
"""

import base64
import hashlib
from typing import Annotated, Final

from fastapi import APIRouter, Header
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from api_shim.http.problems import documented

router = APIRouter(tags=["ollama"])

HEARTBEAT: Final = "Ollama is running"
"""The response that clients of Ollama expect."""
_STYLE: Final = """
:root{color-scheme:light dark}
body{font:16px/1.6 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:0}
h2{font-size:1.1rem;margin-top:2rem}
code,pre{font:14px/1.5 ui-monospace,monospace}
pre{padding:.8rem 1rem;overflow-x:auto;border:1px solid #8886;border-radius:6px}
dt{font-weight:600}
dd{margin:0 0 .6rem}
"""
_PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>llm-fleet</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>llm-fleet</h1>
<p>The queue in front of language-model backends. Chat, embed, pull and image jobs wait here in
fair order; workers next to a backend run them; every word can be followed from anywhere, left,
and come back to.</p>
<h2>Look around</h2>
<dl>
<dt><a href="/docs">/docs</a></dt>
<dd>every path of the API, to read and to try (<a href="/openapi.json">/openapi.json</a> for
programs)</dd>
<dt><a href="/api/v1/backends">/api/v1/backends</a>, <a href="/api/v1/models">/api/v1/models</a>,
<a href="/api/v1/queues">/api/v1/queues</a></dt>
<dd>what the fleet is made of now (with a key, once there are keys)</dd>
<dt><a href="/readyz">/readyz</a>, <a href="/healthz">/healthz</a></dt>
<dd>whether it can take a job, and whether this process lives</dd>
</dl>
<h2>Ask it</h2>
<pre>fleet chat "Why is the sky blue?"
fleet embed texts.txt -o vectors.npy
fleet jobs list</pre>
<dl>
<dt>Clients of OpenAI</dt>
<dd>take this address with <code>/v1</code> behind it as their base URL</dd>
<dt>Clients of Ollama</dt>
<dd>take this address as <code>OLLAMA_HOST</code></dd>
</dl>
</main>
</body>
</html>
"""


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_hash(_STYLE)}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Vary": "Accept",
}


@router.get(
    "/",
    operation_id="ollama_heartbeat",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}, **documented(500)},
)
@router.head("/", include_in_schema=False)
async def get_root(accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
    """Get a page for browsers, or the heartbeat that clients of Ollama expect."""
    return front(accept)


def front(accept: str) -> Response:
    """The page for clients that name `text/html` in Accept; else the heartbeat."""
    if wants_html(accept):
        return HTMLResponse(_PAGE, headers=_HEADERS)
    return PlainTextResponse(HEARTBEAT, headers={"Vary": "Accept"})


def wants_html(accept: str) -> bool:
    """Whether `text/html` is accepted by name, and at least as much as `text/plain`."""
    weights = {}
    for offer in accept.lower().split(","):
        name, *options = (part.strip() for part in offer.split(";"))
        weights[name] = min((_weight(each) for each in options), default=1.0)
    html = weights.get("text/html", 0.0)
    return html > 0 and html >= weights.get("text/plain", 0.0)


def _weight(option: str) -> float:
    """The weight of `q=0.5`; 1 for any other option."""
    name, _, text = option.partition("=")
    try:
        return float(text) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
