"""Every exception of aiohttp becomes one of ours."""

import inspect

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions

from contract.errors import (
    BackendError,
    BackendStalled,
    BackendUnreachable,
    BadEndpoint,
    TruncatedStream,
)
from workers.backends.http.client import BackendClient
from workers.backends.http.foreign_errors import FOREIGN_ERRORS, to_backend_error, was_dropped

# No web socket is ever opened, so this one cannot come.
NEVER = {client_exceptions.WSMessageTypeError}


def raised_by(*modules: object) -> list[type[Exception]]:
    classes = {
        found
        for module in modules
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and found.__module__.startswith("aiohttp")
    }
    return sorted(classes - NEVER, key=lambda found: found.__qualname__)


def one(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    for name in ("args", "message", "status", "os_error", "strerror"):
        try:
            setattr(error, name, () if name == "args" else "x")
        except AttributeError:
            continue
    return error


@pytest.mark.parametrize("began", [False, True])
@pytest.mark.parametrize("kind", raised_by(client_exceptions, http_exceptions))
def test_every_exception_of_the_library_becomes_a_backend_error(
    kind: type[Exception], *, began: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "__str__", lambda _: "words", raising=False)

    assert issubclass(kind, FOREIGN_ERRORS)
    assert isinstance(to_backend_error(one(kind), "http://x", began=began), BackendError)


def test_a_refused_connection_was_not_dropped() -> None:
    assert not was_dropped(one(aiohttp.ClientConnectorError))
    assert not was_dropped(one(aiohttp.ConnectionTimeoutError))
    assert was_dropped(aiohttp.ServerDisconnectedError())
    assert was_dropped(ConnectionResetError())


def test_after_the_response_began_a_timeout_differs_from_a_broken_connection() -> None:
    late, cut = aiohttp.SocketTimeoutError("t"), aiohttp.ClientPayloadError("t")

    assert BackendStalled is type(to_backend_error(late, "http://x", began=True))
    assert TruncatedStream is type(to_backend_error(cut, "http://x", began=True))
    assert BackendUnreachable is type(to_backend_error(late, "http://x"))


def test_a_wrong_address_is_no_matter_for_a_retry() -> None:
    assert BadEndpoint is type(to_backend_error(aiohttp.NonHttpUrlClientError("x"), "ftp://x"))


def test_an_error_names_the_address_and_not_the_key() -> None:
    error = to_backend_error(
        aiohttp.ClientConnectionError("no route for k3y"), "http://box:1", secrets=("k3y",)
    )

    assert error.message == "http://box:1 cannot be reached: no route for ***"


@pytest.mark.parametrize("host", ["a..example", "a" * 64])
async def test_a_name_that_cannot_be_looked_up_is_a_wrong_address(host: str) -> None:
    client = BackendClient(f"http://{host}:1")
    try:
        with pytest.raises(BadEndpoint, match="check the address"):
            await client.json("GET", "/x")
    finally:
        await client.aclose()
