"""Forms with files: how a `multipart/form-data` body is taken.

A web page elsewhere may send a form without asking first, which it may not do with JSON, so a form
that comes from another origin is refused: a page must not use a shim on its reader's machine.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import FormData

from api_shim.http.problems import Refusal

MULTIPART: Final = "multipart/form-data"


def require_form(request: Request) -> None:
    """Return if a call brings a form that may be taken; raises Refusal."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != MULTIPART:
        raise Refusal(
            "unsupported_media_type",
            f"The body says it is {media_type[:80] or 'nothing in particular'}: "
            f"send it as {MULTIPART}.",
            status=415,
        )
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refusal(
            "cross_origin", "Forms are not taken from pages of another origin.", status=403
        )


@asynccontextmanager
async def form_of(
    request: Request, *, max_files: int, max_fields: int = 100
) -> AsyncGenerator[FormData]:
    """A call's form, while this is entered; its large files lie on disk. Raises Refusal."""
    require_form(request)
    async with request.form(max_files=max_files, max_fields=max_fields) as form:
        yield form
