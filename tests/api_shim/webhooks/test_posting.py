"""Signatures of webhooks: whatever is posted verifies, and nothing else does.

Receivers verify with the package of the standard.
"""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from api_shim.webhooks.posting import LONGEST_PAUSE_S, _seconds, pause_s, post, signed
from outbound.public_web import PublicWeb
from relay.webhooks.receivers import StoredDelivery
from relay.webhooks.webhook_store import _new_secret

NOW = 1_800_000_000
bodies = some.dictionaries(some.text(max_size=8), some.text(max_size=20), max_size=4).map(
    lambda event: json.dumps(event, ensure_ascii=False).encode("utf-8", "replace")
)
ids = some.from_regex(r"msg_[0-9a-f]{32}", fullmatch=True)


@given(ids, bodies, some.integers(1, 3))
def test_a_receiver_with_any_of_the_secrets_reads_what_was_posted(
    id: str, body: bytes, count: int
) -> None:
    secrets = [_new_secret() for _ in range(count)]
    headers = signed(id, body, [SecretStr(each) for each in secrets], int(time.time()))

    for each in secrets:
        assert Webhook(each).verify(body, headers) == json.loads(body)


@given(ids, bodies, some.data())
def test_a_changed_body_id_time_or_signature_is_refused(
    id: str, body: bytes, data: some.DataObject
) -> None:
    secret, now = _new_secret(), int(time.time())
    headers = signed(id, body, [SecretStr(secret)], now)
    what = data.draw(some.sampled_from(["body", *headers]))
    if what == "body":
        at = data.draw(some.integers(0, len(body) - 1))
        body = body[:at] + bytes([body[at] ^ data.draw(some.integers(1, 255))]) + body[at + 1 :]
    elif what == "webhook-timestamp":
        headers[what] = str(now + data.draw(some.integers(-(10**6), 10**6).filter(bool)))
    else:
        at = data.draw(some.integers(4, len(headers[what]) - 4))
        other = data.draw(
            some.sampled_from("0123456789abcdef").filter(lambda c: c != headers[what][at])
        )
        headers[what] = headers[what][:at] + other + headers[what][at + 1 :]

    with pytest.raises((WebhookVerificationError, UnicodeDecodeError)):
        Webhook(secret).verify(body, headers)


@given(some.text() | some.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT")))
def test_whatever_a_receiver_asks_for_the_pause_is_bounded(text: str) -> None:
    asked_s = _seconds({"Retry-After": text}, float(NOW))

    assert asked_s >= 0
    assert 0 < pause_s(50, 2.0, asked_s) <= 1.2 * LONGEST_PAUSE_S


async def test_an_address_of_an_older_version_that_is_none_fails_in_words() -> None:
    delivery = StoredDelivery(id="evt_1", type="job.done", subject="j", at=1, webhook="w", body="")
    secret = SecretStr(_new_secret())
    async with PublicWeb(private=True, total_s=5) as web:
        result = await post(web, "http://xn--a/", delivery, [secret], NOW)

    assert result.status is None
    assert "with xn-- is no name" in result.error
