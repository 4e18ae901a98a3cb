"""`fleet keys`, and every other command with a key: from the environment or as an option."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.shim import serving
from support.up import DEADLINE_S, ROOT, Command, environment, start_up, stop

from contract.errors import LastAdmin
from contract.tenants import USE
from fleet import Client
from fleet.client.errors import NotAuthorised

ADMIN = ("--tenant", "boss", "--admin")


@pytest.fixture
def redis_url(own_redis: RedisServer) -> str:
    """Not the session's: its shim would take what the next test empties for a loss of keys."""
    return own_redis.url


@pytest.fixture
def shim(redis_url: str) -> Iterator[Keyed]:
    with keyed(redis_url) as fleet:
        yield fleet


def test_the_first_key_is_made_on_stdout_and_opens_the_fleet(
    fleet: Command, redis_url: str
) -> None:
    with serving(redis_url, key_max_age_s=0.2) as url:
        made = fleet("keys", "create", *ADMIN, FLEET_URL=url)
        key = made.stdout.strip()

        assert (made.returncode, made.stdout) == (0, f"{key}\n")
        assert "once" in made.stderr
        assert key not in made.stderr
        assert fleet("jobs", FLEET_URL=url).returncode == 4
        assert fleet("jobs", FLEET_URL=url, FLEET_API_KEY=key).returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--tenant", "me"),
        ("--tenant", "me", "--admin", "--expires", "1d"),
        ("--tenant", "Me!", "--admin"),
        ("--tenant", "me", "--admin", "--weight", "0"),
        ("--tenant", "me", "--admin", "--expires", "soon"),
        (),
    ],
)
def test_a_wrong_wish_is_2_and_makes_none(
    words: tuple[str, ...], fleet: Command, redis_url: str
) -> None:
    with serving(redis_url) as url:
        failed = fleet("keys", "create", *words, FLEET_URL=url)

        assert (failed.returncode, failed.stdout) == (2, "")
        assert fleet("keys", "list", "--json", FLEET_URL=url).stdout == ""


def test_keys_are_listed_without_the_keys_and_revoked_by_id(fleet: Command, shim: Keyed) -> None:
    variables = {"FLEET_URL": shim.url, "FLEET_API_KEY": shim.key}
    limits = ("--limit-jobs", "7", "--limit-bytes", "5000000")
    options = ("--tenant", "a", "--weight", "2.5", *limits, "--expires", "90d")
    made = json.loads(fleet("keys", "create", *options, "--json", **variables).stdout)
    listed = fleet("keys", "list", "--json", **variables).stdout
    rows = {row["id"]: row for row in map(json.loads, listed.splitlines())}
    table = fleet("keys", "list", **variables).stdout

    assert made["key"] not in listed + table
    assert (rows[made["id"]]["weight"], rows[made["id"]]["limit_jobs"]) == (2.5, 7)
    assert rows[made["id"]]["expires_at"] == pytest.approx(made["created_at"] + 90 * 86400)
    assert rows[made["id"]]["limit_bytes"] == 5_000_000
    assert made["id"] in table
    assert "5000000 waiting bytes" in table
    assert fleet("keys", "revoke", made["id"], **variables).returncode == 0
    again = fleet("keys", "revoke", made["id"], **variables)
    assert (again.returncode, "revoked before" in again.stderr) == (1, True)


def test_a_key_is_made_changed_and_rotated_from_the_terminal(fleet: Command, shim: Keyed) -> None:
    variables = {"FLEET_URL": shim.url, "FLEET_API_KEY": shim.key}

    def rows() -> dict[str, Any]:
        listed = fleet("keys", "list", "--json", **variables).stdout
        return {row["id"]: row for row in map(json.loads, listed.splitlines())}

    rights = ("--allow", "use,models:write", "--models", "qwen*, llama3", "--backends", "gpu*")
    made = json.loads(
        fleet("keys", "create", "--tenant", "a", *rights, "--json", **variables).stdout
    )
    changes = ("--models", "*", "--allow", "embed", "--limit-bytes", "0", "--expires", "2d")
    changed = fleet("keys", "update", made["id"], *changes, **variables)
    rotated = json.loads(
        fleet("keys", "rotate", made["id"][:8], "--overlap", "1h", "--json", **variables).stdout
    )

    assert (made["permissions"], made["models"]) == ([*USE, "models:write"], ["qwen*", "llama3"])
    assert (changed.returncode, "may embed, only all models on gpu*" in changed.stderr) == (0, True)
    assert rows()[rotated["id"]]["permissions"] == ["embed"]
    assert rotated["replaces"] == made["id"]
    assert rows()[made["id"]]["expires_at"] == pytest.approx(rotated["created_at"] + 3600, abs=2)
    table = fleet("keys", "list", **variables).stdout
    assert "embed" in table
    done = [json.loads(line) for line in fleet("audit", "--json", **variables).stdout.splitlines()]
    assert [each["action"] for each in done[:2]] == [
        "POST /api/v1/keys/{id}/rotate", "PATCH /api/v1/keys/{id}",
    ]  # fmt: skip
    assert fleet("audit", FLEET_URL=shim.url, FLEET_API_KEY=rotated["key"]).returncode == 4
    assert "/api/v1/audit" in fleet("audit", "--refused", **variables).stdout
    for wrong in (("--allow", "everything"), ("--models", "a b"), ("--expires", "soon"), ()):
        assert fleet("keys", "update", made["id"], *wrong, **variables).returncode == 2
    assert (
        fleet("keys", "update", shim.key.split("_")[1], "--allow", "chat", **variables).returncode
        == 1
    )


def test_no_key_a_wrong_one_and_one_that_may_not_are_4(fleet: Command, shim: Keyed) -> None:
    key = shim.issue("a")["key"]
    for words, variables in (
        (("jobs",), {}),
        (("jobs",), {"FLEET_API_KEY": "flk_wrong"}),
        (("keys", "list"), {"FLEET_API_KEY": key}),
        (("backends", "remove", "x"), {"FLEET_API_KEY": key}),
    ):
        refused = fleet(*words, FLEET_URL=shim.url, **variables)

        assert (refused.returncode, refused.stdout) == (4, "")
        assert "key" in refused.stderr


@pytest.mark.parametrize("words", [("jobs", "list"), ("ls",), ("queues",), ("backends",)])
def test_every_command_takes_a_key_as_an_option(
    words: tuple[str, ...], fleet: Command, shim: Keyed, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{shim.key}\n")
    given = ("--api-key", f"@{file}")

    assert fleet(*words, FLEET_URL=shim.url).returncode == 4
    assert fleet(*words, *given, FLEET_URL=shim.url).returncode == 0
    assert fleet(*words, *given, FLEET_URL=shim.url, FLEET_API_KEY="flk_wrong").returncode == 0
    assert fleet(*words, FLEET_URL=shim.url).returncode == 4


def test_a_key_on_the_command_line_is_refused_with_the_remedy(fleet: Command, shim: Keyed) -> None:
    refused = fleet("jobs", "list", "--api-key", shim.key, FLEET_URL=shim.url)

    assert refused.returncode == 2
    assert "--api-key @FILE" in " ".join(refused.stderr.split())
    assert shim.key not in refused.stderr


def test_a_client_makes_lists_and_revokes_keys(shim: Keyed) -> None:
    with Client(shim.url, api_key=shim.key) as admin:
        issued = admin.create_key("a", limit_tokens=10)
        listed = admin.keys()
        assert [key.tenant for key in listed] == ["boss", "a"]
        with pytest.raises(LastAdmin):
            admin.revoke_key(shim.key.split("_")[1])
        with Client(shim.url, api_key=issued.key.get_secret_value()) as tenant:
            assert tenant.jobs().jobs == ()
            with pytest.raises(NotAuthorised):
                tenant.keys()
        assert admin.revoke_key(issued.id).limit_tokens == 10
        assert issued.key.get_secret_value() not in repr(issued)


@pytest.mark.slow
def test_up_with_keys_and_without_one_is_ready_and_says_so(tmp_path: Path) -> None:
    first = start_up(tmp_path)
    with Client(first.url) as fleet:
        fleet.create_key("boss", admin=True)
    stop(first)
    again = subprocess.Popen(
        [
            sys.executable, "-m", "fleet", "up", "--data-dir", str(tmp_path), "--port", "0",
            "--backend", "scripted=scripted://",
        ],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert again.stdout
    assert again.stderr
    try:
        lines = [again.stdout.readline() for _ in range(5)]
        assert lines[0].startswith("address ")
        assert "FLEET_API_KEY=... fleet chat" in lines[-1]
    finally:
        again.terminate()
        again.communicate(timeout=DEADLINE_S)


@pytest.mark.slow
def test_up_on_another_address_says_what_is_missing(tmp_path: Path) -> None:
    up = subprocess.run(
        [
            sys.executable, "-m", "fleet", "up", "--data-dir", str(tmp_path), "--port", "0",
            "--backend", "scripted=scripted://",
        ],
        cwd=ROOT, env=environment(FLEET_HOST="0.0.0.0"), timeout=DEADLINE_S, check=False,
        capture_output=True, text=True,
    )  # fmt: skip

    assert up.returncode == 1
    assert up.stderr.count("\n") == 1
    assert "fleet keys create" in up.stderr
    assert [log.name for log in (tmp_path / "logs").iterdir()] == ["redis.log"]


def test_a_tenant_is_deleted_once_its_name_is_written_again(fleet: Command, shim: Keyed) -> None:
    shim.issue("clinic")
    env = {"FLEET_URL": shim.url, "FLEET_API_KEY": shim.key}
    wrong = fleet("tenants", "delete", "clinic", "--confirm", "clini", **env)
    begun = fleet("tenants", "delete", "clinic", "--confirm", "clinic", "--no-wait", **env)
    told = fleet("tenants", "receipt", "clinic", "--json", **env)
    nobody = fleet("tenants", "receipt", "nobody", **env)

    assert (wrong.returncode, begun.returncode, nobody.returncode) == (1, 0, 1)
    assert "write the tenant's name again" in wrong.stderr
    assert "the deletion of clinic, which boss began " in begun.stderr
    assert json.loads(told.stdout)["requested_by"] == "boss"
