"""Turns the bytes of a Gemini answer into parsed chunks, and into the errors among them.

An error in the middle comes as `data:`, or as a bare JSON object or array over many
lines; a request for a stream may also be answered with one JSON array. Does no I/O.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic_core import from_json

from contract.errors_m_backend_errors import (
    TruncatedStream,
)
from workers.backends.http.decoders import BARE, Sse
from workers.backends.http.error_table import error_from, error_in
from workers.backends.shapes import no_json

_DONE: Final = b"[DONE]"


class ChunkReader:
    """Fed with packets; gives chunks. Raises the BackendError that a chunk is."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        """`secrets` are kept out of errors."""
        self._secrets = secrets
        self._sse = Sse()
        self._bare: list[bytes] = []

    def feed(self, packet: bytes) -> Iterator[dict[str, Any]]:
        """The chunks that these bytes complete."""
        return self._chunks(self._sse.feed(packet))

    def flush(self) -> Iterator[dict[str, Any]]:
        """The chunk that the end cut short, if any; raises what stood bare at the end."""
        yield from self._chunks(self._sse.flush(), is_cut=True)
        bare = b"\n".join(self._bare)
        if bare and b"data:".startswith(bare):
            raise TruncatedStream("the answer broke off at the beginning of a chunk")
        if bare:
            raise error_from(0, bare, secrets=self._secrets)

    def whole(self, body: bytes) -> Iterator[dict[str, Any]]:
        """The chunks of an answer that is one JSON text: an object, or an array of them."""
        value = self._parsed(body, is_cut=True)
        for item in value if isinstance(value, list) else [value]:
            yield self._checked(item)

    def _chunks(
        self, events: Iterable[tuple[str, bytes]], *, is_cut: bool = False
    ) -> Iterator[dict[str, Any]]:
        for name, data in events:
            if name == BARE:
                self._add_bare(data)
            elif data == _DONE:
                continue  # a proxy's word of the end, which Gemini does not have
            else:
                yield self._checked(self._parsed(data, is_cut=is_cut))

    def _add_bare(self, line: bytes) -> None:
        """Collect; the last brace tells the error although the connection may stay open.

        It stands at the beginning of its line: the braces inside are not tried.
        """
        self._bare.append(line)
        if len(self._bare) == 1 or line.rstrip() in {b"}", b"]", b"}]"}:
            try:
                value = from_json(b"\n".join(self._bare))
            except ValueError:
                return
            raise error_in(value, secrets=self._secrets)

    def _parsed(self, data: bytes, *, is_cut: bool) -> Any:
        try:
            return from_json(data)
        except ValueError as error:
            raise no_json(error, is_cut=is_cut) from None

    def _checked(self, item: Any) -> dict[str, Any]:
        if isinstance(item, list) and item:
            item = item[0]
        if not isinstance(item, dict) or item.get("error"):
            raise error_in(item, secrets=self._secrets)
        return item
