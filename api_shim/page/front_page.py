"""GET /: the page for browsers, and the heartbeat of Ollama for its clients.

The page is static and needs no key: all that it shows comes from the public API, which the browser
calls with the key of the person who signed in. Its Content-Security-Policy is in `page_files.py`.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from api_shim.http.problems import documented
from api_shim.page.page_files import PREFIX, PageFile, page

router = APIRouter(tags=["ollama"])

HEARTBEAT: Final = "Ollama is running"
"""The response that clients of Ollama expect."""
_SAFE: Final = {"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
_FOREVER: Final = "public, max-age=31536000, immutable"


@router.get(
    "/",
    operation_id="ollama_heartbeat",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}, **documented(500)},
)
@router.head("/", include_in_schema=False)
async def get_root(request: Request) -> Response:
    """Get the page for browsers, or the heartbeat that clients of Ollama expect."""
    return front(request)


@router.get(PREFIX + "{digest}/{path:path}", include_in_schema=False)
async def get_file(
    digest: str,
    path: str,
    request: Request,
    accept_encoding: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Get a file of the page.

    A path of another version gets the file of this one, which is not kept: behind one address
    there may be shims of two versions while a fleet is upgraded.
    """
    whole = page()
    file = whole.files.get(path)
    if file is None:
        return PlainTextResponse("The page has no such file.", 404, headers=_SAFE)
    caching = _FOREVER if digest == whole.digest else "no-cache"
    return _sent(file, request, accept_encoding, {"Cache-Control": caching})


def front(request: Request) -> Response:
    """The page for clients that name `text/html` in Accept; else the heartbeat."""
    if not wants_html(request.headers.get("accept", "")):
        return PlainTextResponse(HEARTBEAT, headers={"Vary": "Accept"})
    whole = page()
    headers = {"Content-Security-Policy": whole.policy, "Cache-Control": "no-cache"}
    encoding = request.headers.get("accept-encoding", "")
    return _sent(whole.document, request, encoding, headers, vary="Accept, Accept-Encoding")


def _sent(
    file: PageFile,
    request: Request,
    accept_encoding: str,
    headers: dict[str, str],
    vary: str = "Accept-Encoding",
) -> Response:
    headers = {**_SAFE, **headers, "ETag": file.tag, "Vary": vary}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in accept_encoding.lower():
        headers["Content-Encoding"] = "gzip"
        return Response(file.zipped, headers=headers, media_type=file.media_type)
    return Response(file.body, headers=headers, media_type=file.media_type)


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
