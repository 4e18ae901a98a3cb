"""`fleet redis acl` writes users whose passwords it shows once and keeps."""

from pathlib import Path

from typer.testing import CliRunner

from fleet.cli.app import app
from relay.access.redis_users import digest_of, digests_in


def acl(file: Path, *words: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["redis", "acl", str(file), *words])
    return told.exit_code, told.output


def passwords(text: str) -> dict[str, str]:
    urls = [line.partition("redis://")[2] for line in text.splitlines() if "redis://" in line]
    return dict(url.partition("@")[0].split(":", 1) for url in urls)


def test_passwords_are_shown_once_stored_as_digests_and_stay(tmp_path: Path) -> None:
    file = tmp_path / "users.acl"
    shown = passwords(acl(file)[1])
    again = passwords(acl(file)[1])
    rotated = passwords(acl(file, "--rotate", "fleet-worker")[1])

    assert set(shown) == {"fleet-shim", "fleet-worker", "fleet-admin"}
    assert (again, set(rotated)) == ({}, {"fleet-worker"})
    assert digests_in(file.read_text()) == {
        name: digest_of(text) for name, text in (shown | rotated).items()
    }
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(text in file.read_text() for text in (shown | rotated).values())


def test_an_unknown_user_and_an_unreadable_file_are_errors(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")

    code, told = acl(tmp_path / "users.acl", "--rotate", "nobody")
    assert (code, "the users are fleet-shim" in told) == (2, True)
    code, told = acl(tmp_path / "binary")
    assert (code, "cannot be read" in told) == (2, True)
