"""The `fleet` command, put together from the modules of `fleet/cli/commands`."""

import sys
from typing import Annotated

import typer

from contract.errors import InvalidSetting
from fleet.cli.commands import (
    alias,
    audit,
    backends,
    batch,
    chat,
    config,
    dead,
    doctor,
    embed,
    image,
    jobs,
    keys,
    logs,
    model,
    ps,
    queues,
    rerank,
    roster,
    service,
    tenants,
    up,
    usage,
    webhooks,
    worker,
)
from fleet.cli.commands.options import all_with_key, with_key
from fleet.cli.exit_codes import complain, exit_of
from telemetry.process_metrics import installed_version

app = typer.Typer(
    name="fleet",
    help="A queue in front of language-model backends: start it, send requests, inspect it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _print_version(*, is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"llm-fleet {installed_version()}")
        raise typer.Exit


@app.callback()
def _fleet(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options before the name of a command."""


for command in (
    up.up,
    logs.logs,
    config.trust,
    up.demo,
    chat.chat,
    embed.embed,
    rerank.rerank,
    image.image,
    model.pull,
    model.show,
    model.load,
    model.unload,
    ps.ps,
    model.rm,
    model.cp,
    model.create,
    roster.models,
    roster.workers,
    usage.usage,
    audit.audit,
):
    app.command()(with_key(command))
app.command("run")(with_key(chat.run_))
app.command("ls")(with_key(roster.models))
for name, group in (
    ("alias", alias.app),
    ("backends", backends.app),
    ("queues", queues.app),
    ("jobs", jobs.app),
    ("batch", batch.app),
    ("dead", dead.app),
    ("keys", keys.app),
    ("tenants", tenants.app),
    ("webhooks", webhooks.app),
    ("config", config.app),
    ("doctor", doctor.app),
    ("service", service.app),
    ("redis", service.redis),
    ("worker", worker.app),
):
    app.add_typer(all_with_key(group), name=name)


def main() -> None:
    """Entry point of the console script; reports an InvalidSetting that parsing options raised."""
    try:
        app()
    except InvalidSetting as error:
        complain(error)
        sys.exit(exit_of(error))
