"""NotSupported for a path that a server does not have, naming backend and path."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from contract.errors import BackendError, BadEndpoint, NotSupported

_NOT_FOUND: Final = frozenset({404, 405})


@contextmanager
def needs_path(backend: str, url: str, path: str) -> Iterator[None]:
    """Raise NotSupported if the request inside fails with 404 or 405 for its path.

    `url` has no credentials. An error about a missing model is another class, and is raised
    unchanged.
    """
    try:
        yield
    except BadEndpoint as error:
        raise as_missing(error, backend, url, path) from error


def as_missing(error: BadEndpoint, backend: str, url: str, path: str) -> BackendError:
    """NotSupported for an error that means that the path is missing, else the error itself."""
    if error.upstream_status not in _NOT_FOUND:
        return error
    return NotSupported(
        f"backend {backend} has no {path} at {url}: {error.message}",
        upstream_status=error.upstream_status,
    )
