"""`fleet webhooks`: added, listed, rotated, replayed and removed."""

import json

import pytest
from support.up import Command

ADDRESS = "http://hooks.invalid/9"
"""Nothing is posted there: it is no public address."""


def rows(told: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in told.splitlines()]


def test_a_webhook_is_added_used_and_removed(fleet: Command) -> None:
    made = json.loads(
        fleet("webhooks", "add", ADDRESS, "-e", "job.*", "--name", "n", "--json").stdout
    )
    said = fleet("chat", "one two", "-m", "scripted-echo")
    listed = rows(fleet("webhooks", "list", "--json").stdout)
    waiting = rows(fleet("webhooks", "deliveries", made["id"], "--json").stdout)
    rotated = fleet("webhooks", "rotate", made["id"], "--overlap", "1h")
    callbacks = fleet("webhooks", "rotate", "callbacks", "--overlap", "0")
    off = fleet("webhooks", "disable", made["id"])
    refused = fleet("webhooks", "replay", made["id"], "--since", "2h")
    fleet("webhooks", "enable", made["id"])
    again = fleet("webhooks", "replay", made["id"], "--since", "2h", "--failed")
    removed = [fleet("webhooks", "remove", each) for each in (made["id"], "callbacks")]

    assert said.returncode == 0, said.stderr
    assert made["secret"].startswith("whsec_")
    assert [(each["url"], each["events"], each["name"]) for each in listed] == [
        (ADDRESS, ["job.*"], "n")
    ]
    assert "secret" not in listed[0]
    assert waiting[-1]["type"] == "job.done"
    assert rotated.stdout.strip().startswith("whsec_")
    assert rotated.stdout.strip() != made["secret"]
    assert callbacks.stdout.strip().startswith("whsec_")
    assert off.returncode == 0
    assert (refused.returncode, "fleet webhooks enable" in refused.stderr) == (2, True)
    assert "made again: " in again.stderr
    assert "made again: 0" not in again.stderr
    assert [each.returncode for each in removed] == [0, 0]
    assert fleet("webhooks", "deliveries", made["id"]).returncode == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "example.com"), "http or https"),
        (("add", ADDRESS, "-e", "job.started"), "events"),
        (("rotate", "callbacks", "--overlap", "soon"), "24h"),
        (("rotate", "wh_1"), "there is no webhook"),
        (("replay", "wh_1"), "--since"),
        (("replay", "wh_1", "--since", "yesterday"), "no time"),
        (("deliveries", "wh_1", "--state", "lost"), "waiting, delivered, failed"),
    ],
)
def test_what_is_wrong_is_said(words: tuple[str, ...], said: str, fleet: Command) -> None:
    told = fleet("webhooks", *words)

    assert told.returncode in {1, 2}
    assert said in told.stderr.replace("\n", " ").replace("│", "").replace("  ", " ")
