"""What the packer asks of a cache of vectors; relay/vector_cache.py is one."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Memory(Protocol):
    """Keeps vectors by the digest of what they are of; never raises."""

    async def get(self, digests: Sequence[str]) -> list[bytes | None]:
        """Rows of little-endian float32, in the order of the digests; None is unknown."""
        ...

    async def put(self, rows: Mapping[str, bytes]) -> None:
        """Keep rows by their digests."""
        ...
