"""Request features that a backend does not support: refused, or reported as ignored."""

from contract.errors import NotSupported
from contract.features import REMEDIES, Feature, wishes
from contract.requests import Request
from workers.backends.protocols import Backend, GrantsFeatures


def grants(backend: Backend) -> frozenset[Feature]:
    """The features that a backend supports beyond those of every backend."""
    return backend.grants if isinstance(backend, GrantsFeatures) else frozenset()


def ungranted(request: Request, backend: Backend) -> tuple[str, ...]:
    """The fields of the request that this backend ignores.

    Raises NotSupported, with the remedy, for a feature that must not be ignored.
    """
    missing = [each for each in wishes(request) if each not in grants(backend)]
    for feature in missing:
        if feature in REMEDIES:
            raise NotSupported(f"{feature}: backend {backend.name}: {REMEDIES[feature]}")
    return tuple(missing)
