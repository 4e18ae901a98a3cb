"""Text that may be shown."""

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from telemetry.plain_text import escaped, known_secrets, redacted, spellings


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-abc123def456",
        "GET http://user:secret-password@host/v1 failed",
        "header Authorization: Bearer secret-password",
        "https://host/?key=secret-password",
        "my secret-password",
    ],
)
def test_no_message_repeats_a_key(text: str) -> None:
    shown = redacted(text, ["secret-password"])

    assert "secret-password" not in shown
    assert "abc123" not in shown


def test_a_known_secret_is_a_key_or_the_password_of_a_url() -> None:
    given = [SecretStr("a-long-key"), SecretStr("redis://me:p%40ss@box"), SecretStr("abc"), None]

    assert set(known_secrets(given)) == {"a-long-key", "p%40ss", "p@ss"}


@pytest.mark.parametrize("secret", ["us\u00ffr:p~?s>w\u00f8rd", "vllm-key-17", "a/b+c d%e"])
def test_a_secret_is_known_however_a_server_spells_it(secret: str) -> None:
    whole = secret.encode()
    coded = [each(whole).decode() for each in (b64encode, urlsafe_b64encode)]
    forms = [secret, *coded, *(each.rstrip("=") for each in coded)]
    forms += [quote(form, safe="") for form in forms]
    shown = {redacted(f"got <{form}>", spellings([secret, ""])) for form in forms}

    assert shown == {"got <***>"}


def test_a_short_secret_hides_no_words_that_look_like_its_base64() -> None:
    assert redacted("a SGV5 word", spellings(["Hey"])) == "a SGV5 word"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 🦙 日本", "naïve 🦙 日本"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[2J\x7f\x9b", r"\x1b[2J\x7f\x9b"),
        ("a\u061cb\u200ec\u200fd\u206ae", r"a\u061cb\u200ec\u200fd\u206ae"),
        ("\u202egpj.exe\u2069", r"\u202egpj.exe\u2069"),
    ],
)
def test_characters_that_control_a_terminal_are_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
