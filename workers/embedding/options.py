"""The options that texts in one request share, and the request made of them."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from contract.embeddings import EmbedRequest, Task

Text = str | tuple[int, ...]
"""A text, or the ids of its tokens."""


class PackingOptions(NamedTuple):
    """The fields of an embed request that its backend receives, besides the texts."""

    model: str
    dimensions: int | None = None
    truncate: bool | None = None
    """None: not set by the client; some adapters distinguish that from a value."""
    keep_alive_s: float | None = None
    has_ids: bool = False
    """Whether the texts are token ids."""
    task: Task | None = None
    normalize: bool | None = None
    """False or None; vectors are scaled to length 1 after they were packed."""

    @classmethod
    def of(cls, request: EmbedRequest) -> "PackingOptions":
        """The options of a request."""
        return cls(
            request.model,
            request.dimensions,
            request.truncate,
            request.keep_alive_s,
            bool(request.tokens),
            request.task,
            False if request.normalize is False else None,
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
            task=self.task,
            normalize=self.normalize,
            **fields,
        )

    def digest(self, text: Text) -> str:
        """The SHA-256 of a text and all options that determine its vector, in hex."""
        fields = [self.model, self.dimensions, self.truncate is not False, self.has_ids, text]
        if self.task is not None or self.normalize is not None:
            fields += [self.task, self.normalize]
        return hashlib.sha256(to_json(fields)).hexdigest()


def texts_of(request: EmbedRequest) -> tuple[Text, ...]:
    """The texts of a request, in order."""
    return request.input or request.tokens


def tokens_of(text: Text) -> int:
    """Estimated tokens of a text: one per four bytes. The exact number for token ids."""
    return 1 + len(text.encode()) // 4 if isinstance(text, str) else len(text)
