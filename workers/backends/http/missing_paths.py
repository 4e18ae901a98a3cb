"""A path that a server does not have: a job that needs it is told the backend and the path."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from contract.errors import BadEndpoint, NotSupported

_NOT_THERE: Final = frozenset({404, 405})


@contextmanager
def needs_path(backend: str, url: str, path: str) -> Iterator[None]:
    """Raise NotSupported where the server answers that it has no such path.

    `url` has no credentials in it. An answer about a model is another error, and passes.
    """
    try:
        yield
    except BadEndpoint as error:
        if error.upstream_status not in _NOT_THERE:
            raise
        raise NotSupported(
            f"backend {backend} has no {path} at {url}: {error.message}",
            upstream_status=error.upstream_status,
        ) from error
