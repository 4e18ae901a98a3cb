"""Celery's own events (its heartbeats, and what Flower shows), each sent once.

A heartbeat of Celery waits for a lost broker without an end, on the thread that consumes: a worker
that was told to stop meanwhile, or that broke down, would live on and do nothing.
"""

from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from typing_extensions import override


class SentOnce(EventDispatcher):  # type: ignore[misc]
    """Keeps what could not be sent until there is a connection again, instead of waiting for it."""

    @override
    def send(self, type: str, *positional: Any, **fields: Any) -> Any:
        """Send, or keep it for later."""
        return super().send(type, *positional, **fields | {"retry": False})


class EventsSentOnce(Events):  # type: ignore[misc]
    """For `Celery(events=...)`."""

    dispatcher_cls = SentOnce
