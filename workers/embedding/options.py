"""What texts must have in common to go into one request, and the request that they make."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from contract.embeddings import EmbedRequest

Text = str | tuple[int, ...]
"""A text, or the ids of its tokens."""


class PackingOptions(NamedTuple):
    """All of an embed request that its backend sees, besides the texts."""

    model: str
    dimensions: int | None = None
    truncate: bool | None = None
    """None: the caller did not say, which some adapters tell apart."""
    keep_alive_s: float | None = None
    has_ids: bool = False
    """Whether the texts are ids of tokens."""

    @classmethod
    def of(cls, request: EmbedRequest) -> "PackingOptions":
        """Those of a request."""
        return cls(
            request.model,
            request.dimensions,
            request.truncate,
            request.keep_alive_s,
            bool(request.tokens),
        )

    def request(self, texts: Sequence[Text]) -> EmbedRequest:
        """A request for these texts."""
        fields: dict[str, Any] = {"tokens" if self.has_ids else "input": tuple(texts)}
        if self.truncate is not None:
            fields["truncate"] = self.truncate
        return EmbedRequest(
            model=self.model,
            dimensions=self.dimensions,
            keep_alive_s=self.keep_alive_s,
            **fields,
        )

    def digest(self, text: Text) -> str:
        """Names the vector of a text: the same for whoever asks for the same."""
        asked = [self.model, self.dimensions, self.truncate is not False, self.has_ids, text]
        return hashlib.sha256(to_json(asked)).hexdigest()


def texts_of(request: EmbedRequest) -> tuple[Text, ...]:
    """What a request wants embedded, in order."""
    return request.input or request.tokens


def tokens_of(text: Text) -> int:
    """About how long a text is: four bytes are a token."""
    return 1 + len(text.encode()) // 4 if isinstance(text, str) else len(text)
