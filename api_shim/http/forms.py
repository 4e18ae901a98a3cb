"""`multipart/form-data` bodies, parsed whole or as a stream.

Forms of web pages from other origins never get here (`api_shim/http/origins.py`).
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect

from api_shim.http.problems import Refusal

MULTIPART: Final = "multipart/form-data"


def require_form(request: Request) -> None:
    """Check that a request has a form; raises Refusal."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != MULTIPART:
        raise Refusal(
            "unsupported_media_type",
            f"The Content-Type is {media_type[:80] or 'missing'}: send the form as {MULTIPART}.",
            status=415,
        )


@asynccontextmanager
async def open_form(
    request: Request, *, max_files: int, max_fields: int = 100
) -> AsyncGenerator[FormData]:
    """A request's form, open in this context; its large files are on disk. Raises Refusal."""
    require_form(request)
    async with request.form(max_files=max_files, max_fields=max_fields) as form:
        yield form


_MOST_PARTS: Final = 100
_MOST_HEAD_BYTES: Final = 8192
"""Of the headers of one part."""


class FormPart(NamedTuple):
    """The start of a field; its bytes follow."""

    name: str
    filename: str | None
    """None if the field is no file."""


class _ParserEvents:
    """Collects what the parser's callbacks report."""

    def __init__(self) -> None:
        self.items: list[FormPart | bytes] = []
        self.is_over = False
        self._parts = 0
        self._name = b""
        self._value = b""
        self._disposition = b""
        self._head_bytes = 0

    def begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _wrong(f"it has more than {_MOST_PARTS} parts")
        self._disposition = b""
        self._head_bytes = 0

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._add_to_head(end - start)
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._add_to_head(end - start)
        self._value += data[start:end]

    def _add_to_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > _MOST_HEAD_BYTES:
            raise _wrong(f"the head of a part has more than {_MOST_HEAD_BYTES} bytes")

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _wrong("a part has no name")
        filename = options.get(b"filename")
        self.items.append(
            FormPart(_text(options[b"name"]), None if filename is None else _text(filename))
        )

    def data(self, data: bytes, start: int, end: int) -> None:
        self.items.append(data[start:end])

    def end(self) -> None:
        self.is_over = True


async def stream_form(request: Request) -> AsyncGenerator[FormPart | bytes, None]:
    """Each field, then its bytes in pieces; raises Refusal if the form is invalid or incomplete."""
    require_form(request)
    _, options = parse_options_header(request.headers.get("content-type"))
    if b"boundary" not in options:
        raise _wrong("the Content-Type has no boundary")
    events = _ParserEvents()
    try:
        parser = _parser(options[b"boundary"], events)
        async for data in request.stream():
            parser.write(data)
            for items in events.items:
                yield items
            events.items.clear()
        parser.finalize()
    except FormParserError as error:
        raise _wrong(str(error)) from None
    except ClientDisconnect:
        # No client reads this response; the access log records it.
        raise Refusal("caller_left", "The client disconnected.", status=408) from None
    if not events.is_over:
        raise _wrong("it ends before its last boundary")


def _parser(boundary: bytes, events: _ParserEvents) -> MultipartParser:
    return MultipartParser(
        boundary,
        {
            "on_part_begin": events.begin,
            "on_header_field": events.header_name,
            "on_header_value": events.header_value,
            "on_header_end": events.header_end,
            "on_headers_finished": events.headers_end,
            "on_part_data": events.data,
            "on_end": events.end,
        },
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _wrong(why: str) -> Refusal:
    return Refusal("invalid_form", f"The form cannot be read: {why}.", status=400)
