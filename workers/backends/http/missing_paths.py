"""NotSupported for a path that a server does not have, naming backend and path."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from contract.errors import BadEndpoint, NotSupported

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
        if error.upstream_status not in _NOT_FOUND:
            raise
        raise NotSupported(
            f"backend {backend} has no {path} at {url}: {error.message}",
            upstream_status=error.upstream_status,
        ) from error
