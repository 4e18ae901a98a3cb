"""One try at a delivery: what is posted, how it is signed, and what the response means.

Source: Standard Webhooks 1.0. The signature is `v1,` and the base64 of an HMAC-SHA256 over
`<webhook-id>.<webhook-timestamp>.<body>`, with the bytes that the secret's base64 stands for;
while a secret is replaced there is one of each, with a space between. 410 means that the receiver
wants no more events.
"""

import base64
import hmac
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from pydantic import SecretStr

from outbound.public_web import AddressRefused, PublicWeb, Unreachable, first_bytes
from relay.chance import DICE
from relay.webhooks.receivers import StoredDelivery

_MARK: Final = "whsec_"
_READ_BYTES: Final = 64 * 1024
"""Of a response, which are read and discarded so that its connection can be used again."""
_GONE: Final = 410
LONGEST_PAUSE_S: Final = 3600.0
"""Between two tries, whatever a receiver's Retry-After says."""
_LONGEST_FACTOR: Final = 12
"""Doublings of the pause, which is at its longest before."""


class PostResult(NamedTuple):
    """How a try went."""

    status: int | None = None
    """The HTTP status; None: no response came."""
    error: str = ""
    """Empty: the receiver has it."""
    retry_after_s: float = 0.0
    """What the receiver asked for."""

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no more events."""
        return self.status == _GONE


async def post(
    web: PublicWeb, url: str, delivery: StoredDelivery, secrets: Sequence[SecretStr], now: float
) -> PostResult:
    """Post a delivery; `now` is in unix seconds. Raises nothing."""
    body = delivery.body.encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "llm-fleet",
        **signed(delivery.id, body, secrets, int(now)),
    }
    try:
        async with web.request("POST", url, headers=headers, data=body) as response:
            asked_s = _seconds(response.headers, now)
            with suppress(AddressRefused, Unreachable):
                await first_bytes(response, _READ_BYTES)
            return PostResult(response.status, _error(response.status), asked_s)
    except (AddressRefused, Unreachable) as error:
        return PostResult(error=str(error))


def signed(
    delivery_id: str, body: bytes, secrets: Sequence[SecretStr], timestamp: int
) -> dict[str, str]:
    """The three headers; `timestamp` is in unix seconds."""
    content = b"%s.%d.%s" % (delivery_id.encode(), timestamp, body)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_signature(each, content)}" for each in secrets),
    }


def _signature(secret: SecretStr, content: bytes) -> str:
    key = base64.b64decode(secret.get_secret_value().removeprefix(_MARK))
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def pause_s(failures: int, first_s: float, asked_s: float) -> float:
    """Seconds until the next try, after so many that failed: doubled each time, with jitter."""
    grown_s = first_s * 2.0 ** min(failures - 1, _LONGEST_FACTOR)
    jittered_s = min(grown_s, LONGEST_PAUSE_S) * DICE.uniform(0.8, 1.2)
    return max(jittered_s, min(asked_s, LONGEST_PAUSE_S))


def _error(status: int) -> str:
    if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own numbers
        return ""
    if 300 <= status < 400:  # noqa: PLR2004
        return f"it answered {status}: redirects are not followed"
    return f"it answered {status}"


def _seconds(headers: Mapping[str, str], now: float) -> float:
    """Of Retry-After, a number of seconds or a date; 0 if there is none that can be read."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    with suppress(ValueError, TypeError, OverflowError):
        at = parsedate_to_datetime(text)
        return max(0.0, at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now) if text else 0.0
    return 0.0
