"""Request headers that every surface accepts: priority, backend, policies, conversation and so on.

A header overrides the field of the body that means the same: a client library may not let its user
set that field.
"""

from typing import Annotated, Any, Final, NamedTuple, TypeVar

from fastapi import Depends, Header
from pydantic import AfterValidator
from starlette.types import Scope

from contract.chat import ChatRequest
from contract.conversations import LONGEST_KEY, ConversationPolicy, key_of
from contract.requests import (
    LONGEST_DEADLINE_S,
    Moment,
    OnDisconnect,
    OnNoWorker,
    Priority,
    Request,
    Retention,
    disconnect_policy,
    retention_of,
)
from contract.webhooks.webhook_models import checked_url

AnyKind = TypeVar("AnyKind", bound=Request)

ANTHROPIC_VERSION: Final = "anthropic-version"
"""Every request of an Anthropic client has this header: on paths that OpenAI has too, it tells
whose client it is."""
_LONGEST_KEY: Final = 255
_ON_DISCONNECT: Final = r"^(continue|cancel|cancel_after_s=[0-9]{1,5}(\.[0-9]{1,3})?)$"


def _possible(text: str | None) -> str | None:
    if text is not None:
        try:
            disconnect_policy(text)
        except ValueError:
            raise ValueError("cancel_after_s must be more than 0 and at most 86400") from None
    return text


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=_LONGEST_KEY,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same request is the same job, however often it is "
        "sent; with another request it is a 409. Up to 255 visible ASCII characters.",
    ),
]
PriorityHeader = Annotated[
    Priority | None,
    Header(alias="X-Fleet-Priority", description="Instead of the body's `priority`."),
]
OnDisconnectHeader = Annotated[
    str | None,
    Header(
        alias="X-Fleet-On-Disconnect",
        pattern=_ON_DISCONNECT,
        description="Instead of the body's `on_disconnect`: `continue`, `cancel` or "
        "`cancel_after_s=<seconds>`.",
        examples=["cancel_after_s=30"],
    ),
    AfterValidator(_possible),
]
OnNoWorkerHeader = Annotated[
    OnNoWorker | None,
    Header(
        alias="X-Fleet-On-No-Worker",
        description="Instead of the body's `on_no_worker`: whether the job waits for a worker of a "
        "known backend to start, or is refused with 503 while none is live.",
    ),
]


NotBeforeHeader = Annotated[
    Moment | None,
    Header(
        alias="X-Fleet-Not-Before",
        description="Instead of the body's `not_before`: when the job may start at the earliest, "
        "as RFC 3339 or in unix seconds.",
    ),
]
BusyWaitHeader = Annotated[
    float | None,
    Header(
        alias="X-Fleet-Busy-Wait",
        ge=0,
        le=LONGEST_DEADLINE_S,
        description="Instead of the body's `busy_wait_s`: seconds for which the job is retried "
        "while its backend is busy, before the client gets that error.",
    ),
]
SESSION: Final = "x-claude-code-session-id"
"""Claude Code's own header; what it names is its conversation."""
ConversationHeader = Annotated[
    str | None,
    Header(
        alias="X-Fleet-Conversation",
        min_length=1,
        max_length=LONGEST_KEY,
        description="Instead of the body's `conversation`: the conversation that a chat continues, "
        "by a name of the client's. Its messages go to the address that has their prefix in its "
        "cache.",
    ),
]
ConversationPolicyHeader = Annotated[
    ConversationPolicy | None,
    Header(
        alias="X-Fleet-Conversation-Policy",
        description="Instead of the body's `conversation_policy`: what a message does while an "
        "earlier one of its conversation has not ended.",
    ),
]
SessionHeader = Annotated[
    str | None,
    Header(alias=SESSION, include_in_schema=False),
]


def _possible_retention(text: str | None) -> str | None:
    if text is not None:
        retention_of(text)
    return text


def _checked_url(text: str | None) -> str | None:
    return None if text is None else checked_url(text)


WebhookHeader = Annotated[
    str | None,
    Header(
        alias="X-Fleet-Webhook",
        description="Instead of the body's `callback_url`: where the end of the job or batch is "
        "posted.",
        examples=["https://example.com/hooks"],
    ),
    AfterValidator(_checked_url),
]
RetentionHeader = Annotated[
    str | None,
    Header(
        alias="X-Fleet-Retention",
        pattern=r"^(none|ttl|[1-9][0-9]{0,8})$",
        description="Instead of the body's `retention`: how long the texts of the job are kept "
        "after its end: `none`, seconds, or `ttl` for as long as the fleet keeps any.",
        examples=["none"],
    ),
    AfterValidator(_possible_retention),
]
BACKEND_NAME: Final = r"^[a-z][a-z0-9_-]{0,39}$"
BackendHeader = Annotated[
    str | None,
    Header(
        alias="X-Fleet-Backend",
        pattern=BACKEND_NAME,
        description="Instead of the body's `backend`: its name, where a model's fits several.",
    ),
]


def is_anthropic(scope: Scope) -> bool:
    """Whether a client of Anthropic's API has sent the request."""
    name = ANTHROPIC_VERSION.encode()
    return any(key == name for key, _ in scope["headers"])


class Preferences(NamedTuple):
    """The preferences in the headers of one call; None where a header is absent."""

    idempotency_key: str | None = None
    priority: Priority | None = None
    on_disconnect: OnDisconnect | None = None
    backend: str | None = None
    on_no_worker: OnNoWorker | None = None
    not_before: float | None = None
    conversation: str | None = None
    conversation_policy: ConversationPolicy | None = None
    busy_wait_s: float | None = None
    callback_url: str | None = None
    retention: Retention | None = None

    def over(self, request: AnyKind) -> AnyKind:
        """The request with the headers' values in place of its own.

        Only chats are messages of a conversation.
        """
        values: dict[str, Any] = {
            "priority": self.priority,
            "on_disconnect": self.on_disconnect,
            "backend": self.backend,
            "on_no_worker": self.on_no_worker,
            "not_before": self.not_before,
            "busy_wait_s": self.busy_wait_s,
            "callback_url": self.callback_url,
            "retention": self.retention,
        }
        if isinstance(request, ChatRequest):
            values["conversation"] = self.conversation
            values["conversation_policy"] = self.conversation_policy
        given = {name: value for name, value in values.items() if value is not None}
        return request.model_copy(update=given) if given else request


async def _preferences(
    *,
    idempotency_key: IdempotencyKey = None,
    priority: PriorityHeader = None,
    on_disconnect: OnDisconnectHeader = None,
    backend: BackendHeader = None,
    on_no_worker: OnNoWorkerHeader = None,
    not_before: NotBeforeHeader = None,
    conversation: ConversationHeader = None,
    conversation_policy: ConversationPolicyHeader = None,
    session: SessionHeader = None,
    busy_wait: BusyWaitHeader = None,
    webhook: WebhookHeader = None,
    retention: RetentionHeader = None,
) -> Preferences:
    return Preferences(
        idempotency_key,
        priority,
        None if on_disconnect is None else disconnect_policy(on_disconnect),
        backend,
        on_no_worker,
        not_before,
        conversation if conversation is not None else key_of(session),
        conversation_policy,
        busy_wait,
        webhook,
        None if retention is None else retention_of(retention),
    )


Preferred = Annotated[Preferences, Depends(_preferences)]
"""A route's parameter: the preferences of a call that submits jobs."""
