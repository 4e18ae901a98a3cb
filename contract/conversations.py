"""Conversations: what joins the messages of one client's conversation, and what a second one does.

A key that a client sends names a conversation within its tenant. Its messages prefer the address
that has their prefix in its cache (docs/adr/0055). In Redis's keys a conversation is a digest of
tenant and key.
"""

import hashlib
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field

ConversationPolicy = Literal["parallel", "queue", "reject", "interrupt"]
"""What a message does while an earlier one of its conversation waits or runs: run beside it, run
after it, be refused, or cancel it."""

LONGEST_KEY: Final = 512
"""Characters of a key."""
ConversationKey = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
"""The client's name for a conversation."""
_ID_BYTES: Final = 12


class ConversationTurn(NamedTuple):
    """A message's place in a conversation."""

    conversation: str
    """The id of the conversation: see `conversation_id`."""
    policy: ConversationPolicy
    """That of the request, else of the setting."""


def conversation_id(tenant: str, key: str) -> str:
    """The id of a tenant's conversation: 24 hexadecimal digits, which reveal neither."""
    text = f"{tenant}\0{key}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=_ID_BYTES).hexdigest()


def turn_of(request: Any, tenant: str, default: ConversationPolicy) -> ConversationTurn | None:
    """The turn of a request; None for one without a conversation.

    `default` is the policy of a request that names none.
    """
    key = getattr(request, "conversation", None)
    if key is None:
        return None
    # The rows of a batch share a key for its cache: they are many at once by design.
    usual = "parallel" if request.priority == "batch" else default
    return ConversationTurn(conversation_id(tenant, key), request.conversation_policy or usual)


def key_of(text: object) -> str | None:
    """A client's own field (`prompt_cache_key`, `user_id`) as a key; None if it names nothing.

    One that is too long becomes its digest: what other services accept is no reason to refuse.
    """
    if not isinstance(text, str) or not text:
        return None
    if len(text) <= LONGEST_KEY:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
