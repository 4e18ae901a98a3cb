"""Results of jobs as Python values: images as bytes, vectors as arrays."""

import base64
from typing import TYPE_CHECKING

from contract.embeddings import EmbedRequest
from contract.errors import InternalError
from contract.rerank import RerankRequest
from contract.result import Embeddings, Result
from fleet.client.map import MapResult

if TYPE_CHECKING:
    import numpy as np

    Rows = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class WrongCount(InternalError):
    """The number of vectors or scores in a result is not that of texts in its request."""

    code = "wrong_count"


def images_of(result: Result) -> list[bytes]:
    """The encoded images (PNG, JPEG, ...) of an image job's result, without previews."""
    found = (each.data for each in result.images if not each.partial)
    return [base64.b64decode(data) for data in found if data is not None]


def array_of(found: Embeddings | None, expected: int) -> "Rows":
    """The vectors of a job as a float32 array of shape (texts, dimension).

    Raises WrongCount unless there are `expected` of them.
    """
    import numpy as np  # noqa: PLC0415 - imported only for vectors

    if found is None or found.count != expected:
        count = found.count if found else 0
        raise WrongCount(f"{count} vectors came back for {expected} texts")
    flat = np.frombuffer(base64.b64decode(found.data), dtype="<f4")
    return flat.reshape(found.count, found.dimension).astype(np.float32, copy=False)


def scores_of(mapped: MapResult) -> list[float]:
    """The scores of a rerank request, in the order of its documents.

    Raises the error that the request failed with, and WrongCount.
    """
    found, request = mapped.result.ranking, mapped.request
    assert isinstance(request, RerankRequest)  # noqa: S101 - for the type checker
    if len(found) != request.count:
        raise WrongCount(f"{len(found)} scores came back for {request.count} documents")
    return [each.score for each in sorted(found, key=lambda each: each.index)]


def rows_of(mapped: MapResult) -> "Rows":
    """The vectors of an embed request as a float32 array of shape (texts, dimension).

    Raises the error that the request failed with, and WrongCount.
    """
    found, request = mapped.result.embeddings, mapped.request
    assert isinstance(request, EmbedRequest)  # noqa: S101 - for the type checker
    return array_of(found, request.count)
