"""Every exception of httpx and aiohttp becomes one of ours."""

import inspect

import aiohttp
import httpx
import pytest
from aiohttp import client_exceptions, http_exceptions

from contract.errors import (
    BackendError,
    BackendStalled,
    BadEndpoint,
    TruncatedStream,
)
from workers.backends.http.foreign_errors import foreign_errors, to_backend_error, was_dropped

# No web socket is ever opened, so this one cannot come.
NEVER = {client_exceptions.WSMessageTypeError}


def raised_by(*modules: object) -> list[type[Exception]]:
    classes = {
        found
        for module in modules
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and found.__module__.startswith(("httpx", "aiohttp"))
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
@pytest.mark.parametrize("kind", raised_by(httpx, client_exceptions, http_exceptions))
def test_every_exception_of_both_libraries_becomes_to_backend_error(
    kind: type[Exception], *, began: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "__str__", lambda _: "words", raising=False)
    error = one(kind)

    with pytest.raises(BackendError), foreign_errors("http://x", began=began):
        raise error


def test_what_aiohttp_meant_is_seen_through_the_wrapper() -> None:
    wrapper = httpx.ConnectTimeout("wrapped")
    wrapper.__cause__ = aiohttp.ServerDisconnectedError()

    assert was_dropped(wrapper)
    assert "Server disconnected" in to_backend_error(wrapper, "http://x").message


def test_a_refused_connection_was_not_dropped() -> None:
    assert not was_dropped(httpx.ConnectError("refused"))
    assert was_dropped(httpx.ReadError("reset"))


def test_after_the_response_began_a_timeout_differs_from_a_broken_connection() -> None:
    assert BackendStalled is type(to_backend_error(httpx.ReadTimeout("t"), "http://x", began=True))
    assert TruncatedStream is type(to_backend_error(httpx.ReadError("t"), "http://x", began=True))


def test_a_wrong_address_is_no_matter_for_a_retry() -> None:
    assert BadEndpoint is type(to_backend_error(httpx.UnsupportedProtocol("ftp"), "ftp://x"))


def test_an_error_names_the_address_and_not_the_key() -> None:
    error = to_backend_error(
        httpx.ConnectError("no route for k3y"), "http://box:1", secrets=("k3y",)
    )

    assert error.message == "http://box:1 cannot be reached: no route for ***"
