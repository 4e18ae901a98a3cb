"""`fleet service` and `fleet redis`: files for who runs a fleet: systemd's units, Redis's users."""

import secrets
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from contract.errors import InvalidRequest
from fleet.atomic_file import whole
from fleet.cli.commands.options import Json, backend_given
from fleet.cli.exit_codes import Exit, run
from fleet.cli.terminal import Terminal
from fleet.local.systemd_units import What, folder, unit
from relay.access.redis_users import aclfile, digest_of, digests_in, redis_users

redis = typer.Typer(help="Prepare a Redis server for a fleet.", no_args_is_help=True)
app = typer.Typer(help="Run the fleet as a service of systemd.", no_args_is_help=True)


@app.command()
def install(
    what: Annotated[
        What, typer.Argument(help="`fleet up`, a shim alone, or workers of this machine.")
    ] = "up",
    *,
    user: Annotated[
        bool, typer.Option("--user", help="A service of this user, not of the system.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit; write nothing.")
    ] = False,
    options: Annotated[
        str, typer.Option(help="More of its command line, as in '--scale box=0..4'.")
    ] = "",
) -> None:
    """Write the unit, and print the commands that start it; settings go into fleet.env."""
    for flag, value in pairwise(shlex.split(options.replace("--backend=", "--backend "))):
        if flag == "--backend":
            backend_given(value)  # refuses one with a key: every user can read a unit
    interpreter = Path(sys.executable)
    program = interpreter.with_name("fleet") if what == "up" else interpreter
    made = unit(what, program=program, options=options, is_user=user)
    terminal = Terminal(json=False)
    path = folder(is_user=user) / made.name
    if dry_run:
        terminal.write_line(f"# {path}")
        terminal.write_line(made.text.rstrip())
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made.text, encoding="utf-8")
    except OSError as error:
        terminal.message(f"{path} cannot be written: {error.strerror}; use sudo, or --user")
        raise typer.Exit(Exit.FAILED) from None
    terminal.message(f"{path} is written; now:")
    for command in made.commands:
        terminal.write_line(command)


@redis.callback()
def prepare() -> None:
    """Prepare a Redis server for a fleet."""


@redis.command()
def acl(
    file: Annotated[
        Path, typer.Argument(help="Written anew; passwords of users that it has stay.")
    ] = Path("users.acl"),
    *,
    rotate: Annotated[
        list[str] | None, typer.Option(help="A user that gets a new password; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Write an aclfile with users of least rights for shims, workers and admins.

    Start the server with `--aclfile FILE`, or run `ACL LOAD`; new passwords are shown only once.
    """

    async def command() -> Exit:
        return _acl(file, rotate or [], Terminal(json=json))

    run(command())


def _acl(file: Path, rotated: list[str], terminal: Terminal) -> Exit:
    names = [each.name for each in redis_users()]
    if unknown := set(rotated) - set(names):
        raise InvalidRequest(f"--rotate {min(unknown)}: the users are {', '.join(names)}")
    try:
        kept = digests_in(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, UnicodeDecodeError):
        raise InvalidRequest(f"{file} cannot be read: name another file, or delete it") from None
    fresh = {
        name: secrets.token_urlsafe(24) for name in names if name not in kept or name in rotated
    }
    digests = kept | {name: digest_of(password) for name, password in fresh.items()}
    with whole(file, private=True) as opened:
        opened.write(aclfile(digests).encode())
    for name in names:
        _tell(name, fresh.get(name), terminal)
    terminal.message(f"{file.resolve()} is written: start the server with --aclfile, or ACL LOAD")
    return Exit.OK


def _tell(name: str, password: str | None, terminal: Terminal) -> None:
    if terminal.json:
        terminal.write_json_object({"user": name, "password": password})
    elif password is None:
        terminal.write_line(f"# {name}: its password stays")
    else:
        terminal.write_line(f"FLEET_REDIS_URL=redis://{name}:{password}@127.0.0.1:6379/0")
