"""`fleet worker`: what a container or a service manager asks of one worker process."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.exit_codes import Exit
from fleet.cli.terminal import Terminal

app = typer.Typer(help="Check or retire one worker process of this machine.")

_POLL_S = 0.5


@app.command()
def health(
    *,
    file: Annotated[
        Path | None, typer.Option(help="File that it writes.  [default: FLEET_HEALTH_FILE]")
    ] = None,
    max_age: Annotated[
        float, typer.Option(min=1, help="Seconds that the last report may be old.")
    ] = 30.0,
) -> None:
    """Exit 0 if the worker has reported lately, 1 if it has not.

    In a probe that runs often, `find "$FLEET_HEALTH_FILE" -mmin -0.5` says the same for less.
    """
    from workers.settings import WorkerSettings  # noqa: PLC0415 - slow to import

    path = file or WorkerSettings().health_file
    if path is None:
        raise typer.BadParameter("no file: set FLEET_HEALTH_FILE for the worker, or give --file")
    problem = _problem(path, max_age)
    if problem is not None:
        Terminal(json=False).message(problem)
        raise typer.Exit(Exit.FAILED)


def _problem(path: Path, max_age_s: float) -> str | None:
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError as error:
        return f"the worker has not reported: {error}"
    if age_s > max_age_s:
        return f"the worker last reported {age_s:.0f} s ago, and {max_age_s:g} s are allowed"
    return None


@app.command()
def retire(
    *,
    pid: Annotated[int, typer.Option(min=1, help="Its process; 1 in a container.")] = 1,
    within: Annotated[
        float, typer.Option(min=0, help="Seconds to wait; it goes on retiring after that.")
    ] = 3600.0,
) -> None:
    """Let a worker finish its jobs and end, and wait for that; exit 1 if it takes longer.

    For `preStop` of Kubernetes: what is then left of the grace period is for FLEET_DRAIN_S.
    """
    give_up_at = time.monotonic() + within
    try:
        while time.monotonic() < give_up_at:
            # Again and again: process 1 of a container ignores it until it has its handler.
            os.kill(pid, signal.SIGUSR2)
            time.sleep(_POLL_S)
    except ProcessLookupError:
        return
    raise typer.Exit(Exit.FAILED)
