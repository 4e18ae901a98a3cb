"""What of a request its backend has no word for: refused where that would change the answer."""

from contract.errors import NotSupported
from contract.features import REMEDIES, Feature, wishes
from contract.requests import Request
from workers.backends.protocols import Backend, GrantsFeatures


def grants(backend: Backend) -> frozenset[Feature]:
    """What requests may wish for beyond what every backend can do."""
    return backend.grants if isinstance(backend, GrantsFeatures) else frozenset()


def ungranted(request: Request, backend: Backend) -> tuple[str, ...]:
    """Fields of the request that this backend ignores; raises NotSupported for what it may not."""
    missing = [wish for wish in wishes(request) if wish not in grants(backend)]
    for wish in missing:
        if wish in REMEDIES:
            raise NotSupported(f"{wish}: backend {backend.name}: {REMEDIES[wish]}")
    return tuple(missing)
