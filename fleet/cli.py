"""The `fleet` command: its groups put together. Each group is a file in `fleet/commands/`."""

import typer

from fleet.commands import (
    backends,
    chat,
    config,
    demo,
    doctor,
    embed,
    image,
    jobs,
    model,
    ps,
    pull,
    roster,
    up,
)

app = typer.Typer(
    name="fleet",
    help="A queue in front of language-model backends: start it, ask it, look at it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

for command in (
    up.up,
    demo.demo,
    chat.chat,
    embed.embed,
    image.image,
    pull.pull,
    model.show,
    model.load,
    model.unload,
    ps.ps,
    model.rm,
    model.cp,
    model.create,
    roster.models,
    roster.queues,
    roster.workers,
    doctor.doctor,
):
    app.command()(command)
app.command("run")(chat.run_)
app.command("ls")(roster.models)
app.add_typer(backends.app, name="backends")
app.add_typer(jobs.app, name="jobs")
app.add_typer(config.app, name="config")


def main() -> None:
    """Entry point of the console script."""
    app()
